//! A node's admin port: as much HTTP as health and metrics need.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ClusterError;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a node answers over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// The status code, such as 200 or 503.
    pub status: u16,
    /// The body.
    pub body: String,
}

pub(super) async fn get(port: u16, path: &str) -> Result<HttpAnswer, ClusterError> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let answer = answer
        .map_err(|source| ClusterError::Io { action: format!("get {path} from port {port}"), source })?;
    parse(&answer).ok_or_else(|| {
        let line = answer.lines().next().unwrap_or_default().to_owned();
        ClusterError::NotHttp { port, answer: line }
    })
}

fn parse(answer: &str) -> Option<HttpAnswer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some(HttpAnswer { status, body: body.to_owned() })
}

/// The sum of all lines of this metric, whatever their labels.
pub(super) fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.parse::<f64>().ok()
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mixed_with_longer_names() {
        let text = "# TYPE kvd_a counter\nkvd_a_total{code=\"x\"} 2\nkvd_a_total{code=\"y\"} 3\nkvd_a 7\n";
        assert_eq!(
            (metric(text, "kvd_a_total"), metric(text, "kvd_a"), metric(text, "kvd")),
            (5.0, 7.0, 0.0)
        );
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot ready\n").unwrap();
        assert_eq!(answer, HttpAnswer { status: 503, body: "not ready\n".to_owned() });
        assert_eq!(parse("SSH-2.0"), None);
    }
}

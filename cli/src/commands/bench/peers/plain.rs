//! What a peer says over a plain connection: metrics over HTTP, and ZooKeeper's four-letter words.

use std::io;
use std::time::Duration;

use quorumkv_client::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest answer that is read.
const LONGEST: u64 = 16 << 20;

/// Says this, and reads all that is answered until the connection ends. Why it failed is for people.
pub(super) async fn ask(endpoint: &Endpoint, question: &str, time: Duration) -> Result<String, String> {
    match timeout(time, exchange(endpoint, question)).await {
        Ok(Ok(answer)) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {time:?}")),
    }
}

async fn exchange(endpoint: &Endpoint, question: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(endpoint.as_str()).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What is at a path of an HTTP server.
pub(super) async fn get(endpoint: &Endpoint, path: &str, time: Duration) -> Result<String, String> {
    // Version 1.0 is answered in one piece, after which the connection ends.
    let question = format!("GET {path} HTTP/1.0\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    let answer = ask(endpoint, &question, time).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path} is not served"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(format!("{path} is answered with {status}"))
    }
}

/// A metric without labels in Prometheus's text format.
pub(super) fn metric(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# HELP a_count x\na_count_total 7\na_count 3\nb 1.5e-05\n";
        assert_eq!(metric(text, "a_count"), Some(3.0));
        assert_eq!(metric(text, "b"), Some(1.5e-5));
        assert_eq!(metric(text, "c"), None);
    }
}

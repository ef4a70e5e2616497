//! Encrypted connections, and who clients are by their certificates.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use quorumkv_keeper::jute::Decoder;
use quorumkv_keeper::server::{Config, Secure, Server};
use quorumkv_keeper::wire::op;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::raw::{Client, connect_request, read_to_end};
use crate::{config, start};

/// Somebody who vouches for others.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    fn issue(
        &self,
        names: &[&str],
        organization: Option<&str>,
        common_name: &str,
    ) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed"), key)
    }
}

/// A server that asks for certificates of `clients`, if there are any.
async fn serve(dir: &Path, servers: &Authority, clients: Option<&Authority>) -> Server {
    let (certificate, key) = servers.issue(&["localhost"], None, "localhost");
    let write = |name: &str, content: String| {
        let path = dir.join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let secure = Secure {
        port: 0,
        certificate: write("cert.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
        client_ca: clients.map(|authority| write("ca.pem", authority.0.pem())),
    };
    start(Config { secure: Some(secure), ..config(dir) }).await
}

async fn connect(
    address: SocketAddr,
    servers: &Authority,
    identity: Option<(rcgen::Certificate, KeyPair)>,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(servers.0.der().clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("an identity")
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_and_plain_clients_see_one_tree() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("servers");
    let server = serve(dir.path(), &authority, None).await;
    let secure = server.secure_address().expect("an address");
    let mut encrypted = Client::over(connect(secure, &authority, None).await, 0, &[0; 16]).await;
    let data = vec![b'x'; 500_000];
    assert_eq!(encrypted.create("/a", &data).await, Ok("/a".to_owned()));
    let mut plain = Client::connect(server.address()).await;
    assert_eq!(plain.get("/a").await, Ok(data.clone()));
    assert_eq!(encrypted.get("/a").await, Ok(data));

    let mut stream = connect(secure, &authority, None).await;
    stream.write_all(b"ruok").await.expect("written");
    assert_eq!(read_to_end(&mut stream).await, b"imok");

    // Whoever does not speak TLS there is not served, nor is one who does where nobody expects it.
    let mut stream = TcpStream::connect(secure).await.expect("connected");
    stream.write_all(&connect_request(0, &[0; 16])).await.expect("written");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.len() < 20, "a session was begun in plain text");
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_identities() {
    let dir = tempfile::tempdir().expect("a directory");
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let server = serve(dir.path(), &servers, Some(&clients)).await;
    let secure = server.secure_address().expect("an address");
    let identity = clients.issue(&[], Some("Example, Inc."), "alice");
    let mut alice = Client::over(connect(secure, &servers, Some(identity)).await, 0, &[0; 16]).await;
    let reply = alice.call(op::WHO_AM_I, |_| ()).await.expect("answered");
    let ids = Decoder::new(&reply).vector(|decoder| Ok((decoder.string()?, decoder.string()?))).expect("ids");
    let x509: Vec<_> = ids.iter().filter(|(scheme, _)| scheme == "x509").map(|(_, id)| id.as_str()).collect();
    assert_eq!(x509, ["CN=alice,O=Example\\, Inc."], "{ids:?}");

    // In TLS 1.3 the client learns that it is refused only when it reads.
    let stranger = servers.issue(&[], None, "mallory");
    for identity in [None, Some(stranger)] {
        let mut stream = connect(secure, &servers, identity).await;
        let _ = stream.write_all(&connect_request(0, &[0; 16])).await;
        assert_eq!(read_to_end(&mut stream).await, [0; 0]);
    }
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_of_no_use_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (certificate, key) = Authority::new("servers").issue(&["localhost"], None, "localhost");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("cert.pem"), certificate.pem()).expect("written");
    std::fs::write(path("key.pem"), key.serialize_pem()).expect("written");
    std::fs::write(path("other.pem"), KeyPair::generate().expect("a key").serialize_pem()).expect("written");
    std::fs::write(path("empty.pem"), "").expect("written");
    let refused = async |certificate: &str, key: &str, client_ca: Option<&str>| {
        let secure = Secure {
            port: 0,
            certificate: path(certificate),
            key: path(key),
            client_ca: client_ca.map(path),
        };
        let config = Config { secure: Some(secure), ..config(dir.path()) };
        Server::start(config).await.expect_err("refused").to_string()
    };
    assert!(refused("none.pem", "key.pem", None).await.contains("none.pem"));
    assert!(refused("none.pem", "none.key", None).await.contains("certificates in"));
    assert!(refused("empty.pem", "key.pem", None).await.contains("no certificate in"));
    assert!(refused("cert.pem", "empty.pem", None).await.contains("a private key in"));
    assert!(refused("cert.pem", "other.pem", None).await.contains("cannot use the certificate"));
    assert!(refused("cert.pem", "key.pem", Some("empty.pem")).await.contains("empty.pem"));
}

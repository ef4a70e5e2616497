//! Arbitrary bytes in place of four-letter words, their list in the settings, and certificates of clients.

use quorumkv_fuzzing::{Case, fuzz, peak_of};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::four_letter::{Whitelist, Word};
use super::tls::subject;
use crate::fuzz::texts;

#[test]
fn four_letter_word() {
    fuzz!(texts(&["ruok", "srvr", "mntr", "wchp", "\0\0\0\u{1}"]), |case: &mut Case| {
        let Some(word) = case.bytes.first_chunk().copied() else { return };
        if let Some(parsed) = Word::parse(word) {
            assert_eq!(parsed.to_string().as_bytes(), word);
            assert!(Whitelist::all().permits(parsed));
        }
    });
}

#[test]
fn whitelist() {
    fuzz!(texts(&["srvr, ruok,mntr", "*", "", "cons,*,crst"]), |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        let (parsed, taken) = peak_of(|| text.parse::<Whitelist>());
        assert!(taken <= text.len() + 1024, "{} bytes took {taken}", text.len());
        let Ok(whitelist) = parsed else { return };
        let names: Vec<_> = text.split(',').map(str::trim).collect();
        for name in ["ruok", "srvr", "dump"] {
            let word = name.as_bytes().try_into().ok().and_then(Word::parse).expect("a word");
            assert_eq!(
                whitelist.permits(word),
                names.contains(&name) || names.contains(&"*"),
                "{name} in {text:?}"
            );
        }
    });
}

#[test]
fn certificate() {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "a, \"b\" + #c");
    parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "grün");
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = parameters.self_signed(&key).expect("a certificate").der().to_vec();
    fuzz!(vec![made], |case: &mut Case| {
        let der = CertificateDer::from(&case.bytes[..]);
        let (name, taken) = peak_of(|| subject(&der));
        assert!(taken <= 64 * case.bytes.len() + 4096, "{} bytes took {taken}", case.bytes.len());
        assert!(name.is_none_or(|name| name.len() <= 16 * case.bytes.len()));
    });
}

//! Who may do what: authentication, and the meaning of access control lists.
//!
//! Schemes: `world` (everybody), `auth` (whoever the caller is, replaced when the list is set), `digest` (a user and a
//! password), `ip` (an address or a network), `x509` (the subject of a client's certificate), `super` (may do
//! everything). Source: the ZooKeeper Programmer's Guide, "ZooKeeper access control using ACLs".

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::wire::{Acl, AskedAcl, ErrorCode, Id, MAX_PACKET, permission};

/// In a list that is no longer than this, each entry is compared with those before it.
const FEW: usize = 8;

/// Whether a list permits any of the permissions in `permission` to whoever has the identities `ids`.
///
/// An empty list permits everything to everybody.
#[must_use]
pub fn permits(acl: &[Acl], permission: i32, ids: &[Id]) -> bool {
    acl.is_empty()
        || acl.iter().any(|entry| entry.permissions & permission != 0 && covers(&entry.id, ids))
        || ids.iter().any(|id| id.scheme == "super")
}

/// Whether an entry of a list means one of these identities.
fn covers(entry: &Id, ids: &[Id]) -> bool {
    match entry.scheme.as_str() {
        "world" => entry.id == "anyone",
        "digest" | "x509" => ids.contains(entry),
        "ip" => network(&entry.id).is_some_and(|network| {
            ids.iter().any(|id| id.scheme == "ip" && id.id.parse().is_ok_and(|address| network.has(address)))
        }),
        _ => false,
    }
}

/// Addresses that begin with the same bits.
struct Network {
    address: IpAddr,
    bits: u32,
}

/// Reads `ADDRESS` or `ADDRESS/BITS`.
fn network(text: &str) -> Option<Network> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address = ipv4(address).map(IpAddr::V4).or_else(|| address.parse().ok())?;
    let longest = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let bits = bits.map_or(Some(longest), |bits| bits.parse().ok()).filter(|bits| *bits <= longest)?;
    Some(Network { address, bits })
}

/// Reads four numbers; unlike the standard library, it takes those that begin with zeros, as ZooKeeper does.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let address = Ipv4Addr::new(parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(address)
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The identities that a client proves with an `auth` request.
///
/// `auth` is `USER:PASSWORD` for the scheme `digest`. Whoever's digest is `super_digest` (`USER:HASH`) is also the super
/// user. A client may name the scheme `ip`, but has its address as an identity anyway.
///
/// # Errors
/// [`ErrorCode::AuthFailed`]: nobody can authenticate with this scheme.
pub fn authenticate(scheme: &str, auth: &[u8], super_digest: Option<&str>) -> Result<Vec<Id>, ErrorCode> {
    match scheme {
        "digest" => {
            let digest = digest(&String::from_utf8_lossy(auth));
            let mut ids = Vec::new();
            if super_digest == Some(digest.as_str()) {
                ids.push(Id::new("super", ""));
            }
            ids.push(Id::new("digest", digest));
            Ok(ids)
        }
        "ip" => Ok(Vec::new()),
        _ => Err(ErrorCode::AuthFailed),
    }
}

/// What stands for `USER:PASSWORD` in lists: `USER:` and the SHA-1 of it all, in base 64.
#[must_use]
pub fn digest(user_and_password: &str) -> String {
    let user = user_and_password.split_once(':').map_or(user_and_password, |(user, _)| user);
    let hash = STANDARD.encode(Sha1::digest(user_and_password.as_bytes()));
    format!("{user}:{hash}")
}

/// The list that a znode gets if a caller with the identities `ids` asks for `asked`: without duplicates, and with each
/// entry of the scheme `auth` replaced by the caller's own identities.
///
/// # Errors
/// [`ErrorCode::InvalidAcl`]: the list is empty, or would be longer than a packet can be; an entry makes no sense, or says
/// `auth` and the caller has not authenticated. [`ErrorCode::MarshallingError`]: a part that is null is needed.
pub fn fix(asked: &[AskedAcl], ids: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    if asked.is_empty() {
        return Err(ErrorCode::InvalidAcl);
    }
    let (mut fixed, mut bytes) = (Vec::with_capacity(asked.len()), 0);
    for entry in distinct(asked)? {
        let before = fixed.len();
        match entry.scheme.as_deref() {
            None => return Err(ErrorCode::InvalidAcl),
            Some("auth") => {
                fixed.extend(
                    ids.iter()
                        .filter(|id| matches!(id.scheme.as_str(), "digest" | "x509"))
                        .map(|id| Acl { permissions: entry.permissions, id: id.clone() }),
                );
                if fixed.len() == before {
                    return Err(ErrorCode::InvalidAcl);
                }
            }
            Some(scheme) => {
                let id = Id::new(scheme, valid(scheme, entry.id.as_deref())?);
                fixed.push(Acl { permissions: entry.permissions, id });
            }
        }
        bytes += fixed[before..].iter().map(|new| new.id.scheme.len() + new.id.id.len() + 12).sum::<usize>();
        if bytes > MAX_PACKET as usize {
            return Err(ErrorCode::InvalidAcl);
        }
    }
    Ok(fixed)
}

/// The entries without those that are equal to an earlier one.
///
/// ZooKeeper compares an entry with each before it: permissions, then schemes, then ids. It fails where that takes it to
/// a part of the entry that is null.
fn distinct(asked: &[AskedAcl]) -> Result<Vec<&AskedAcl>, ErrorCode> {
    if asked.len() <= FEW && asked.iter().all(|entry| entry.scheme.is_some() && entry.id.is_some()) {
        let is_new = |&(index, entry): &(usize, _)| !asked[..index].contains(entry);
        return Ok(asked.iter().enumerate().filter(is_new).map(|(_, entry)| entry).collect());
    }
    let (mut permissions, mut schemes, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut distinct = Vec::with_capacity(asked.len());
    for entry in asked {
        let same_permissions = !permissions.insert(entry.permissions);
        let same_scheme = !schemes.insert((entry.permissions, &entry.scheme));
        if (entry.scheme.is_none() && same_permissions) || (entry.id.is_none() && same_scheme) {
            return Err(ErrorCode::MarshallingError);
        }
        if seen.insert(entry) {
            distinct.push(entry);
        }
    }
    Ok(distinct)
}

/// The id, if it means somebody in its scheme.
fn valid<'a>(scheme: &str, id: Option<&'a str>) -> Result<&'a str, ErrorCode> {
    let id = match scheme {
        "world" | "digest" | "ip" => id.ok_or(ErrorCode::MarshallingError)?,
        _ => id.unwrap_or_default(),
    };
    let is_valid = match scheme {
        "world" => id == "anyone",
        // Two parts, where Java's `split` does not count empty ones at the end.
        "digest" => id.trim_end_matches(':').bytes().filter(|byte| *byte == b':').count() == 1,
        "ip" => network(id).is_some(),
        // A distinguished name. ZooKeeper reads it whole; a wrong one means nobody, here as there.
        "x509" => id.contains('='),
        _ => false,
    };
    if is_valid { Ok(id) } else { Err(ErrorCode::InvalidAcl) }
}

/// The list as it is shown to whoever has the identities `ids`: without the hashes of passwords, unless they may set it.
/// Nobody is to see it at all who may neither read the znode nor set its list.
#[must_use]
pub fn redacted(acl: &[Acl], ids: &[Id]) -> Vec<Acl> {
    let mut shown = acl.to_vec();
    if !permits(acl, permission::ADMIN, ids) {
        for id in shown.iter_mut().map(|entry| &mut entry.id).filter(|id| id.scheme == "digest") {
            if let Some(colon) = id.id.find(':') {
                id.id.replace_range(colon.., ":x");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(permissions: i32, scheme: &str, id: &str) -> Acl {
        Acl { permissions, id: Id::new(scheme, id) }
    }

    fn fixed(asked: Vec<Acl>, ids: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
        fix(&asked.into_iter().map(Into::into).collect::<Vec<_>>(), ids)
    }

    #[test]
    fn a_list_permits_what_an_entry_says_to_those_that_it_means() {
        let me = [Id::new("ip", "10.1.2.3"), Id::new("digest", "u:hash")];
        let all = permission::ALL;
        let cases = [
            (vec![], permission::WRITE, true),
            (vec![acl(all, "world", "anyone")], permission::WRITE, true),
            (vec![acl(permission::READ, "world", "anyone")], permission::WRITE, false),
            (vec![acl(permission::READ, "world", "anyone")], permission::WRITE | permission::READ, true),
            (vec![acl(all, "digest", "u:hash")], permission::WRITE, true),
            (vec![acl(all, "digest", "u:other")], permission::WRITE, false),
            (vec![acl(all, "x509", "u:hash")], permission::WRITE, false),
            (vec![acl(all, "auth", "")], permission::WRITE, false),
            (vec![acl(1, "world", "anyone"), acl(2, "digest", "u:hash")], permission::WRITE, true),
        ];
        for (list, wanted, permitted) in cases {
            assert_eq!(permits(&list, wanted, &me), permitted, "{list:?}");
        }
        assert!(permits(&[acl(0, "digest", "a:b")], permission::ADMIN, &[Id::new("super", "")]));
    }

    #[test]
    fn addresses_are_matched_by_their_first_bits() {
        let cases = [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/0", "200.0.0.1", true),
            ("10.1.2.128/25", "10.1.2.127", false),
            ("10.1.2.128/25", "10.1.2.255", true),
            ("10.1.2.03", "10.1.2.3", true),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("::1", "::1", true),
            ("::1/128", "::2", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "10.1.2.3", false),
            ("::/0", "10.1.2.3", false),
            ("nonsense", "10.1.2.3", false),
        ];
        for (entry, address, permitted) in cases {
            let list = [acl(permission::READ, "ip", entry)];
            assert_eq!(
                permits(&list, permission::READ, &[Id::new("ip", address)]),
                permitted,
                "{entry} {address}"
            );
        }
    }

    /// The hashes are those of Apache ZooKeeper 3.8.
    #[test]
    fn a_password_becomes_an_identity_and_perhaps_the_super_user() {
        let ours = "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=";
        let sup = "super:0bX78nEegDzJM3ju0iLBEJdWzjg=";
        assert_eq!(authenticate("digest", b"u:p", Some(sup)), Ok(vec![Id::new("digest", ours)]));
        assert_eq!(
            authenticate("digest", b"super:pw", Some(sup)),
            Ok(vec![Id::new("super", ""), Id::new("digest", sup)])
        );
        assert_eq!(authenticate("digest", b"super:pw", None), Ok(vec![Id::new("digest", sup)]));
        assert_eq!(authenticate("ip", b"", None), Ok(vec![]));
        for scheme in ["world", "auth", "super", "sasl", "x509", ""] {
            assert_eq!(authenticate(scheme, b"a:b", None), Err(ErrorCode::AuthFailed), "{scheme}");
        }
        // Neither UTF-8 nor a colon is asked for.
        assert_eq!(authenticate("digest", &[0xff], None).map(|ids| ids.len()), Ok(1));
    }

    #[test]
    fn a_list_is_checked_and_completed_before_a_znode_gets_it() {
        let me = [
            Id::new("ip", "10.1.2.3"),
            Id::new("digest", "u:h"),
            Id::new("super", ""),
            Id::new("digest", "v:i"),
        ];
        assert_eq!(
            fixed(vec![acl(1, "auth", "x"), acl(2, "world", "anyone"), acl(1, "auth", "x")], &me),
            Ok(vec![acl(1, "digest", "u:h"), acl(1, "digest", "v:i"), acl(2, "world", "anyone")])
        );
        let valid =
            [("digest", ":a"), ("digest", "a:b:"), ("ip", "1.2.3.4/8"), ("ip", "::1/64"), ("x509", "CN=a")];
        for (scheme, id) in valid {
            assert_eq!(fixed(vec![acl(1, scheme, id)], &[]), Ok(vec![acl(1, scheme, id)]), "{scheme} {id}");
        }
        let invalid = [
            ("", ""),
            ("world", "x"),
            ("auth", ""),
            ("digest", "a"),
            ("digest", "a:"),
            ("digest", ":"),
            ("digest", "a:b:c"),
            ("ip", "1.2.3"),
            ("ip", "1.2.3.4.5"),
            ("ip", "1.2.3.4/"),
            ("ip", "1.2.3.4/33"),
            ("ip", "::1/129"),
            ("x509", ""),
            ("x509", "anyone"),
            ("super", ""),
            ("sasl", "x"),
        ];
        for (scheme, id) in invalid {
            let list = vec![acl(31, "world", "anyone"), acl(1, scheme, id)];
            assert_eq!(
                fixed(list, &[Id::new("ip", "10.1.2.3")]),
                Err(ErrorCode::InvalidAcl),
                "{scheme} {id}"
            );
        }
        assert_eq!(fixed(vec![], &me), Err(ErrorCode::InvalidAcl));
    }

    /// As Apache ZooKeeper 3.8 answers.
    #[test]
    fn what_is_null_is_refused_where_it_is_looked_at() {
        fn asked(permissions: i32, scheme: Option<&str>, id: Option<&str>) -> AskedAcl {
            AskedAcl { permissions, scheme: scheme.map(Into::into), id: id.map(Into::into) }
        }
        let (invalid, malformed) = (Err(ErrorCode::InvalidAcl), Err(ErrorCode::MarshallingError));
        let me = [Id::new("digest", "u:h")];
        let mine = || Ok(vec![acl(31, "digest", "u:h")]);
        let world = || asked(31, Some("world"), Some("anyone"));
        let of = |scheme| asked(31, Some(scheme), None);
        let nobody = |permissions| asked(permissions, None, None);
        let cases = [
            (vec![of("auth")], mine()),
            (vec![nobody(31)], invalid.clone()),
            (vec![asked(31, None, Some("anyone"))], invalid.clone()),
            (vec![of("world")], malformed.clone()),
            (vec![of("digest")], malformed.clone()),
            (vec![of("ip")], malformed.clone()),
            (vec![of("x509")], invalid.clone()),
            (vec![of("super")], invalid.clone()),
            (vec![of("sasl")], invalid.clone()),
            (vec![world(), nobody(31)], malformed.clone()),
            (vec![world(), nobody(1)], invalid.clone()),
            (vec![nobody(31), world()], invalid.clone()),
            (vec![nobody(31), nobody(31)], malformed.clone()),
            (vec![of("auth"), of("auth")], malformed.clone()),
            (vec![asked(31, Some("auth"), Some("x")), of("auth")], malformed.clone()),
            (vec![of("x509"), of("digest")], invalid.clone()),
            (vec![of("digest"), of("x509")], malformed.clone()),
            (vec![world(), world(), of("world")], malformed),
        ];
        for (list, result) in cases {
            assert_eq!(fix(&list, &me), result, "{list:?}");
        }
        assert_eq!(fix(&[of("auth")], &[]), invalid);
        let twice = vec![of("auth"), asked(31, Some("auth"), Some("x"))];
        assert_eq!(fix(&twice, &me), Ok(vec![acl(31, "digest", "u:h"), acl(31, "digest", "u:h")]));
    }

    #[test]
    fn hashes_are_shown_only_to_those_who_may_set_the_list() {
        let list = [acl(permission::ALL, "digest", "u:h"), acl(permission::READ, "world", "anyone")];
        let hidden = vec![acl(permission::ALL, "digest", "u:x"), acl(permission::READ, "world", "anyone")];
        assert_eq!(redacted(&list, &[]), hidden);
        assert_eq!(redacted(&list, &[Id::new("digest", "u:h")]), list);
        assert_eq!(redacted(&list, &[Id::new("super", "")]), list);
    }
}

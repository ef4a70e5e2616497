//! What four-letter words tell of the system around the server.

use std::fs;
use std::path::Path;

/// Without itself; -1 where the system does not tell.
pub(super) fn open_files() -> i64 {
    let count = fs::read_dir("/proc/self/fd").map(Iterator::count);
    count.ok().and_then(|count| i64::try_from(count).ok()).map_or(-1, |count| count - 1)
}

pub(super) fn max_files() -> i64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)
}

/// Bytes of the files in a directory, as their lengths say.
pub(super) fn size(directory: &Path) -> u64 {
    // A file that has just been deleted does not count, nor does a directory that cannot be read.
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

/// What the server, of this version, runs on.
pub(super) fn environment(version: &str) -> String {
    let system = rustix::system::uname();
    let id = rustix::process::getuid().as_raw();
    let (name, home) = user(&fs::read_to_string("/etc/passwd").unwrap_or_default(), id);
    let directory = std::env::current_dir().unwrap_or_default();
    format!(
        "Environment:\nzookeeper.version={version}\nhost.name={}\nos.name={}\nos.arch={}\nos.version={}\nuser.name={name}\n\
         user.home={home}\nuser.dir={}\n",
        system.nodename().to_string_lossy(),
        system.sysname().to_string_lossy(),
        system.machine().to_string_lossy(),
        system.release().to_string_lossy(),
        directory.display(),
    )
}

/// A user's name and home, from the system's list of users; of one who is not in it, as Java has it.
fn user(passwd: &str, id: u32) -> (String, String) {
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, number, _, _, home, _] = fields[..] else { return None };
        (number.parse() == Ok(id)).then(|| (name.to_owned(), home.to_owned()))
    });
    found.unwrap_or_else(|| ("?".to_owned(), "?".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nkeeper:x:1001:1001:,,,:/var/lib/keeper:/bin/false\n";
        let of = |id| user(passwd, id);
        assert_eq!(of(1001), ("keeper".to_owned(), "/var/lib/keeper".to_owned()));
        assert_eq!(of(0).0, "root");
        assert_eq!(of(7), ("?".to_owned(), "?".to_owned()));
    }

    #[test]
    fn a_directory_is_as_large_as_its_files() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("a"), [0; 300]).expect("written");
        fs::write(dir.path().join("b"), [0; 20]).expect("written");
        fs::create_dir(dir.path().join("c")).expect("made");
        assert_eq!(size(dir.path()), 320);
        assert_eq!(size(&dir.path().join("none")), 0);
    }
}

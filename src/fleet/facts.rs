//! What a device says of itself, in one round trip: what the worker needs before it sends anything.

use std::collections::BTreeMap;

/// The folder on the device, in the user's home, as the older tools have it.
pub const FOLDER: &str = "migrate";

/// What a half sent file is called: its name and this.
pub const PART: &str = ".migdb-part";

/// What the device runs, by sh. It changes nothing. Some shells greet: the facts are what stands between
/// two marks.
pub const SCRIPT: &str = r#"
echo 'migdb-facts-begin'
echo "machine $(uname -m)"
echo "os $(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null)"
if [ "$(id -u)" = 0 ]; then echo 'rights root'
elif ! command -v sudo >/dev/null 2>&1; then echo 'rights none'
elif sudo -n -k true >/dev/null 2>&1; then echo 'rights sudo'
else echo 'rights password'
fi
echo "free $(df -Pk . 2>/dev/null | tail -n 1)"
if cd migrate 2>/dev/null; then
    find . -type f -exec sha256sum {} + 2>/dev/null | sed 's/^/file /'
    find . -type f -exec wc -c {} \; 2>/dev/null | sed 's/^ */size /'
fi
echo 'migdb-facts-end'
"#;

/// How the user on the device becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// It is root.
    Root,
    /// sudo asks nothing.
    Sudo,
    /// sudo wants the password.
    Password,
    /// There is no way.
    None,
}

/// A file on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// In hexadecimal digits.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
}

/// A device, as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `uname -m`.
    pub machine: String,
    /// ID of /etc/os-release.
    pub os: String,
    /// How the user becomes root.
    pub rights: Rights,
    /// Free bytes where the home is, if df was understood.
    pub free: Option<u64>,
    /// Files in the folder, by their names there.
    pub files: BTreeMap<String, Remote>,
}

/// Reads what [`SCRIPT`] printed; `None` when it is not whole.
pub fn parse(output: &str) -> Option<Facts> {
    let (_, inner) = output.split_once("migdb-facts-begin\n")?;
    let (inner, _) = inner.split_once("migdb-facts-end\n")?;
    let mut facts = Facts {
        machine: String::new(),
        os: String::new(),
        rights: Rights::None,
        free: None,
        files: BTreeMap::new(),
    };
    for line in inner.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "machine" => value.clone_into(&mut facts.machine),
            "os" => value.trim_matches('"').clone_into(&mut facts.os),
            "rights" => facts.rights = rights(value),
            "free" => facts.free = free(value),
            "file" => {
                if let Some((name, sha256)) = hashed(value) {
                    facts.files.insert(name, Remote { sha256, bytes: 0 });
                }
            }
            "size" => {
                if let Some((bytes, name)) = value.split_once(' ')
                    && let Some(file) = facts.files.get_mut(name.trim_start_matches("./"))
                {
                    file.bytes = bytes.parse().ok()?;
                }
            }
            _ => {}
        }
    }
    (!facts.machine.is_empty()).then_some(facts)
}

fn rights(word: &str) -> Rights {
    match word {
        "root" => Rights::Root,
        "sudo" => Rights::Sudo,
        "password" => Rights::Password,
        _ => Rights::None,
    }
}

/// The fourth column of df, which POSIX promises for -P, in KiB.
fn free(line: &str) -> Option<u64> {
    let kib: u64 = line.split_whitespace().nth(3)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// A line of sha256sum; one with an escaped name is left out, so the file is sent anew.
fn hashed(line: &str) -> Option<(String, String)> {
    let (hash, name) = line.split_once("  ")?;
    let good = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| (name.trim_start_matches("./").to_owned(), hash.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Welcome!\nmigdb-facts-begin\nmachine armv7l\nos raspbian\nrights password\n\
        free /dev/root 30386976 2043076 27097416 8% /\n\
        file e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ./a b/c\n\
        file \\e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ./odd\\nname\n\
        size 12 ./a b/c\nmigdb-facts-end\n";

    #[test]
    fn facts_are_found_between_the_marks() {
        let facts = parse(SAID).unwrap();
        assert_eq!(facts.machine, "armv7l");
        assert_eq!(facts.os, "raspbian");
        assert_eq!(facts.rights, Rights::Password);
        assert_eq!(facts.free, Some(27_097_416 * 1024));
        assert_eq!(facts.files.len(), 1);
        assert_eq!(facts.files["a b/c"].bytes, 12);
    }

    #[test]
    fn facts_that_are_cut_off_are_none() {
        let cut = SAID.strip_suffix("migdb-facts-end\n").unwrap();
        assert_eq!(parse(cut), None);
        assert_eq!(parse(""), None);
    }
}

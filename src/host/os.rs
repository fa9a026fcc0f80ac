//! What the snapshot takes from os-release. Called by the collector.

use std::collections::BTreeMap;

use super::Os;

impl Os {
    /// The fields of an os-release file; those that are missing are empty.
    pub(super) fn from_fields(mut fields: BTreeMap<String, String>) -> Os {
        let mut field = |name: &str| fields.remove(name).unwrap_or_default();
        Os {
            id: field("ID"),
            version_id: field("VERSION_ID"),
            id_like: field("ID_LIKE")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            pretty_name: field("PRETTY_NAME"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os_release;

    fn parse(text: &str) -> Os {
        Os::from_fields(os_release::parse(text))
    }

    #[test]
    fn debian() {
        let os = parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
             VERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n\
             HOME_URL=\"https://www.debian.org/\"\n",
        );
        assert_eq!(os.id, "debian");
        assert_eq!(os.version_id, "12");
        assert_eq!(os.pretty_name, "Debian GNU/Linux 12 (bookworm)");
        assert!(os.id_like.is_empty());
    }

    #[test]
    fn quotes_escapes_comments_and_lists() {
        let os = parse(
            "# ID=no\nID='linuxmint'\nID_LIKE=\"ubuntu debian\"\nPRETTY_NAME=\"a \\\"b\\\"\"",
        );
        assert_eq!(os.id, "linuxmint");
        assert_eq!(os.id_like, ["ubuntu", "debian"]);
        assert_eq!(os.pretty_name, "a \"b\"");
    }
}

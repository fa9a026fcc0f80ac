//! The loose INI files of connman, iwd and systemd-networkd: sections and keys may come twice, and
//! lines that are neither are passed over, as those programs do.

/// A section.
pub struct Section {
    /// Name, without brackets.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// Its settings, in order.
    pub entries: Vec<Entry>,
}

/// A line `key=value`.
pub struct Entry {
    /// Key.
    pub key: String,
    /// Value, as it is written.
    pub value: String,
    /// Line, from 1.
    pub line: usize,
}

impl Section {
    /// The last setting of that name.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| entry.key == key)
    }

    /// Its value.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|entry| entry.value.as_str())
    }

    /// Whether the setting says yes.
    pub fn is_set(&self, key: &str) -> bool {
        let value = self.value(key).unwrap_or_default().to_ascii_lowercase();
        matches!(value.as_str(), "true" | "yes" | "on" | "1")
    }
}

/// Reads a file. What is not UTF-8 is replaced: keys are ASCII, and no value with it can be used.
pub fn parse(bytes: &[u8]) -> Vec<Section> {
    let text = String::from_utf8_lossy(bytes);
    let mut sections: Vec<Section> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            sections.push(Section {
                name: name.to_owned(),
                line: number,
                entries: Vec::new(),
            });
        } else if let (Some(section), Some((key, value))) =
            (sections.last_mut(), line.split_once('='))
        {
            section.entries.push(Entry {
                key: key.trim_end().to_owned(),
                value: value.trim_start().to_owned(),
                line: number,
            });
        }
    }
    sections
}

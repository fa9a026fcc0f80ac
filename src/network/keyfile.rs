//! The file format of NetworkManager's keyfiles.
//!
//! The format is GLib's key file: `[group]`, `key=value`, comments at line starts, backslash escapes
//! (<https://docs.gtk.org/glib/struct.KeyFile.html>). What a value means is NetworkManager's
//! (nm-settings-keyfile(5)). Used by [`super::nm`] to read and by [`super::write`] to write.

/// A key file. It may hold secrets, hence no `Debug`.
#[derive(Clone, Default)]
pub struct Document {
    entries: Vec<Entry>,
}

/// A line `key=value` and the group that it belongs to.
#[derive(Clone)]
pub struct Entry {
    /// Group.
    pub group: String,
    /// Key.
    pub key: String,
    /// Value in its written form.
    pub value: String,
    /// Line, from 1; 0 for what was not read from a file.
    pub line: usize,
}

/// A line that is none of this format.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
}

impl Document {
    /// Reads a key file.
    pub fn parse(text: &str) -> Result<Document, BadLine> {
        let mut document = Document::default();
        let mut group: Option<&str> = None;
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.trim_end().strip_suffix(']');
                group = Some(name.ok_or(BadLine { line: line_number })?);
                continue;
            }
            let (Some(group), Some((key, value))) = (group, line.split_once('=')) else {
                return Err(BadLine { line: line_number });
            };
            document.set(Entry {
                group: group.to_string(),
                key: key.trim_end().to_string(),
                value: value.trim_start().to_string(),
                line: line_number,
            });
        }
        Ok(document)
    }

    /// Every setting, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The written form of a value.
    pub fn get(&self, group: &str, key: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.group == group && entry.key == key)
    }

    /// Whether the group has any setting.
    pub fn has_group(&self, group: &str) -> bool {
        self.entries.iter().any(|entry| entry.group == group)
    }

    /// The same file with every setting replaced.
    pub fn map(self, change: impl FnMut(Entry) -> Entry) -> Document {
        let entries = self.entries.into_iter().map(change).collect();
        Document { entries }
    }

    /// Sets a value; of two for one key the later one counts.
    fn set(&mut self, entry: Entry) {
        let same = |other: &&mut Entry| other.group == entry.group && other.key == entry.key;
        match self.entries.iter_mut().find(same) {
            Some(there) => *there = entry,
            None => self.entries.push(entry),
        }
    }

    /// Sets a value in its written form.
    pub fn put(&mut self, group: &str, key: &str, written: &str) {
        self.set(Entry {
            group: group.to_string(),
            key: key.to_string(),
            value: written.to_string(),
            line: 0,
        });
    }

    /// The file: groups in the order in which they were first named.
    pub fn to_text(&self) -> String {
        let mut groups: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !groups.contains(&entry.group.as_str()) {
                groups.push(&entry.group);
            }
        }
        let mut text = String::new();
        for group in groups {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("[{group}]\n"));
            for entry in self.entries.iter().filter(|entry| entry.group == group) {
                text.push_str(&format!("{}={}\n", entry.key, entry.value));
            }
        }
        text
    }
}

/// The SSID that a written value means; `None` when it means none.
pub fn read_ssid(written: &str) -> Option<Vec<u8>> {
    let is_list = written.contains(';')
        && written
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b';' || b == b' ');
    if is_list {
        let numbers = written.split(';').map(str::trim).filter(|n| !n.is_empty());
        if let Ok(bytes) = numbers.map(str::parse).collect::<Result<Vec<u8>, _>>() {
            return Some(bytes);
        }
    }
    // In a text, NetworkManager escapes `;` once more than the file format does.
    unescape(written).map(|text| text.replace("\\;", ";").into_bytes())
}

/// A text in its written form. Blanks at either end are escaped, as readers may strip them.
pub fn escape(text: &str) -> String {
    let last = text.trim_end_matches(' ').len();
    let mut written = String::new();
    let mut leading = true;
    for (index, c) in text.char_indices() {
        leading &= c == ' ';
        match c {
            ' ' if leading || index >= last => written.push_str("\\s"),
            '\t' => written.push_str("\\t"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\\' => written.push_str("\\\\"),
            c => written.push(c),
        }
    }
    written
}

/// The text that a written form means; `None` when it has an escape that does not exist.
pub fn unescape(written: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next()? {
                's' => ' ',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

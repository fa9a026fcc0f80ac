//! config.txt: sections that hold for some boards only, and settings of which the last counts.
//!
//! <https://www.raspberrypi.com/documentation/computers/config_txt.html>

use std::collections::BTreeMap;

use super::board::Model;

/// What the firmware reads of a line; older firmware reads 78. The rest is as if it were not there.
pub const LINE_LIMIT: usize = 98;

/// How deep files may include others.
const INCLUDE_DEPTH: u32 = 8;

/// The board that reads the file, and how it was started.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The model.
    pub model: &'static Model,
    /// Its serial number.
    pub serial: Option<u64>,
    /// The texts of the files on the boot partition, by their names there.
    pub texts: &'a BTreeMap<String, String>,
    /// It was started for once, by the `tryboot` flag.
    pub tryboot: bool,
    /// The kernel that runs has 64 bits: what the firmware has chosen where its files leave it to it.
    pub runs_64: bool,
}

/// A setting that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value, as far as the firmware reads it.
    pub value: String,
    /// File and line.
    pub place: String,
    /// It counts on this board for certain; not, where it depends on a monitor or a pin.
    pub certain: bool,
}

/// What a file sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    settings: BTreeMap<String, Vec<Setting>>,
}

impl Settings {
    /// What a file of the boot partition sets on a board. Files that are not there set nothing.
    pub fn read(reader: Reader, file: &str) -> Settings {
        let mut settings = Settings::default();
        settings.include(reader, file, &mut Filter::default(), 0);
        settings
    }

    /// The setting that counts.
    ///
    /// # Errors
    ///
    /// The place of one that may count or not.
    pub fn get(&self, name: &str) -> Result<Option<&Setting>, &str> {
        let all = self.settings.get(name).map_or(&[][..], Vec::as_slice);
        // Those before the last one that is certain don't matter.
        match all.last() {
            Some(last) if !last.certain => Err(&last.place),
            last => Ok(last),
        }
    }

    /// The value that counts; empty where there is none.
    ///
    /// # Errors
    ///
    /// The place of one that may count or not.
    pub fn value(&self, name: &str) -> Result<&str, &str> {
        Ok(self.get(name)?.map_or("", |setting| &setting.value))
    }

    /// Whether it is set to a number other than 0; `default` where it is not set.
    ///
    /// # Errors
    ///
    /// The place of one that may count or not.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, &str> {
        Ok(match self.value(name)? {
            "" => default,
            value => number(value).is_some_and(|value| value != 0),
        })
    }

    fn include(&mut self, reader: Reader, file: &str, filter: &mut Filter, depth: u32) {
        let Some(text) = reader.texts.get(file) else {
            return;
        };
        for (number, line) in text.lines().enumerate() {
            let line = cut(line.trim());
            if line.starts_with('#') {
                continue;
            }
            let section = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            if let Some((section, _)) = section {
                filter.enter(section, reader);
                continue;
            }
            let holds = filter.holds();
            if holds == Holds::No {
                continue;
            }
            let setting = |value: &str| Setting {
                value: value.to_owned(),
                place: format!("{file}:{}", number + 1),
                certain: holds == Holds::Yes,
            };
            match statement(line) {
                Some(Statement::Include(other)) if depth < INCLUDE_DEPTH => {
                    self.include(reader, other, filter, depth + 1);
                }
                // What follows the files is where in memory they go. Firmware of today takes the line without
                // it too, that of 2015 passed over it.
                Some(Statement::Initramfs(value)) => {
                    let files = value.split_whitespace().next().unwrap_or_default();
                    self.set("ramfsfile", setting(files));
                }
                Some(Statement::Setting(name, value)) => self.set(name, setting(value)),
                Some(Statement::Include(_)) | None => {}
            }
        }
    }

    fn set(&mut self, name: &str, setting: Setting) {
        self.settings
            .entry(name.to_owned())
            .or_default()
            .push(setting);
    }
}

/// What the firmware reads of a line.
fn cut(line: &str) -> &str {
    match line.char_indices().nth(LINE_LIMIT) {
        Some((end, _)) => &line[..end],
        None => line,
    }
}

/// What a line says.
enum Statement<'a> {
    /// Another file stands in its place.
    Include(&'a str),
    /// Files, and perhaps where in memory they go.
    Initramfs(&'a str),
    /// A name and a value.
    Setting(&'a str, &'a str),
}

fn statement(line: &str) -> Option<Statement<'_>> {
    let after = |word: &str| {
        let rest = line.strip_prefix(word)?;
        rest.starts_with([' ', '\t']).then(|| rest.trim())
    };
    if let Some(file) = after("include") {
        return Some(Statement::Include(file));
    }
    if let Some(rest) = after("initramfs") {
        return Some(Statement::Initramfs(rest));
    }
    // Blanks around the `=` are part of name and value, and no setting has such a name.
    let (name, value) = line.split_once('=')?;
    Some(Statement::Setting(name, value.trim_end()))
}

/// A number as the firmware takes it: decimal, or hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Whether a section is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    Unknown,
    Yes,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Holds {
        match holds {
            true => Holds::Yes,
            false => Holds::No,
        }
    }
}

/// The sections in force: one of a kind takes the place of another, those of different kinds add up.
#[derive(Debug, Default)]
struct Filter {
    /// What each kind says.
    kinds: BTreeMap<&'static str, Holds>,
}

impl Filter {
    fn enter(&mut self, section: &str, reader: Reader) {
        let (kind, holds) = match section.split_once('=') {
            Some(("board-type", code)) => {
                let code = number(code).and_then(|code| u32::try_from(code).ok());
                ("board", (code == Some(reader.model.code)).into())
            }
            Some(("EDID", _)) => ("monitor", Holds::Unknown),
            Some((name, _)) if name.starts_with("gpio") => ("pin", Holds::Unknown),
            Some(_) => ("unknown", Holds::Unknown),
            None => match section {
                "all" => {
                    self.kinds.clear();
                    return;
                }
                "none" => ("model", Holds::No),
                "tryboot" => ("start", reader.tryboot.into()),
                // Which of two sockets a setting is for.
                _ if section.starts_with("HDMI:") => ("socket", Holds::Yes),
                _ if section.starts_with("0x") => ("serial", serial(section, reader.serial)),
                _ if is_model(section) => {
                    ("model", reader.model.sections.contains(&section).into())
                }
                _ => ("unknown", Holds::Unknown),
            },
        };
        self.kinds.insert(kind, holds);
    }

    fn holds(&self) -> Holds {
        self.kinds.values().copied().min().unwrap_or(Holds::Yes)
    }
}

fn serial(section: &str, serial: Option<u64>) -> Holds {
    match (number(section), serial) {
        // It is mostly written without the upper half.
        (Some(wanted), Some(serial)) => (wanted == serial || wanted == serial & 0xffff_ffff).into(),
        _ => Holds::Unknown,
    }
}

/// Whether a section is for some models: those in the table, and newer ones.
fn is_model(section: &str) -> bool {
    let number = |prefix: &str| {
        let rest = section.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    number("pi") || number("cm")
}

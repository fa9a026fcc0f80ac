//! The syntax of `balena-migrate.conf`: the assignments of a POSIX shell, read and never executed.
//!
//! Called by [`crate::config`]. What a shell would only assign means here what it means there:
//! quotes, backslashes, comments, line continuation, `export`, several assignments on a line. What a
//! shell would expand or run is an error that says so, because guessing a value could cost a
//! device. Two liberties are taken for files that were edited on Windows: CR LF ends a line, and a
//! byte order mark is skipped.

use std::fmt;
use std::ops::Range;

/// `NAME=value` as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The name: letters, digits and `_`.
    pub name: String,
    /// The value, quotes and backslashes resolved. It may hold line breaks.
    pub value: String,
    /// Where the name starts.
    pub at: Position,
    /// The bytes of the text from the name to the end of the value, quotes and all.
    pub bytes: Range<usize>,
}

/// A place in the file, as editors count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct SyntaxError {
    /// Where.
    pub at: Position,
    /// What.
    pub what: Wrong,
}

/// What is not allowed in the file. The texts read `what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// `NAME = value`.
    #[error("there is a blank before `=`; write {0}=value without blanks around `=`")]
    BlankBeforeEquals(String),
    /// `NAME= value`.
    #[error("there is a blank after `{0}=`; write {0}=value without blanks around `=`")]
    BlankAfterEquals(String),
    /// `1NAME=value`, `MY-NAME=value`.
    #[error("`{0}` can't be a name; use letters, digits and `_`")]
    BadName(String),
    /// `NAME+=value`.
    #[error("`+=` is not supported; write the whole value after `=`")]
    Append,
    /// Any word that is no assignment.
    #[error(
        "`{0}` is not NAME=value; this file is read, not run: remove it, or quote the value that it \
         belongs to"
    )]
    Command(String),
    /// `NAME=(a b)`, `NAME[0]=a`.
    #[error("arrays are not supported; write the values in quotes, with blanks between them")]
    Array,
    /// `$NAME`, `${NAME}`, `$(command)`.
    #[error(
        "`{0}` would be expanded by a shell, but this file is read, not run; write the value itself, \
         or put it in single quotes if the character is meant"
    )]
    Expansion(String),
    /// `` `command` ``.
    #[error(
        "a backtick would run a command, but this file is read, not run; write the value itself, \
         or put it in single quotes if the character is meant"
    )]
    Backtick,
    /// `$'…'`, `$"…"`.
    #[error("`${0}` quotes are not supported; use plain quotes")]
    DollarQuote(char),
    /// `~` where a shell would put a home directory.
    #[error(
        "`~` would be somebody's home directory; write the whole path, or put it in quotes if the \
         character is meant"
    )]
    Tilde,
    /// `& | < > ( )` and `;` where no command ends.
    #[error("`{0}` means something to a shell; put the value in quotes if the character is meant")]
    Operator(char),
    /// A quote without its partner.
    #[error("this {0} is never closed; add the closing one")]
    OpenQuote(char),
    /// Typographic quotes.
    #[error("`{0}` is a typographic quote; use \" or '")]
    FancyQuote(char),
    /// A backslash at the very end.
    #[error("the file ends in a backslash; remove it")]
    LastBackslash,
    /// U+0000.
    #[error("there is a NUL character; save the file as plain UTF-8 text")]
    Nul,
}

/// Reads the assignments of `text`, in their order. Stops at the first thing that is wrong: what
/// follows it can't be trusted to mean what it seems to.
pub fn parse(text: &str) -> Result<Vec<Assignment>, SyntaxError> {
    let mut reader = Reader::new(text);
    if let Some(rest) = text.strip_prefix('\u{feff}') {
        reader.rest = rest;
    }
    let mut assignments = Vec::new();
    while reader.peek().is_some() {
        command(&mut reader, &mut assignments)?;
    }
    Ok(assignments)
}

/// `value` as a word that a shell and [`parse`] read back: as it is when nothing in it could mean
/// more, in single quotes otherwise.
pub fn quote(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"%+,-./:@_".contains(&b);
    match !value.is_empty() && value.bytes().all(plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}

/// Reads up to the end of a line or `;`: `[export] NAME=value …`.
fn command(reader: &mut Reader, into: &mut Vec<Assignment>) -> Result<(), SyntaxError> {
    let mut words = 0;
    let mut exporting = false;
    // The place behind `NAME=` when nothing stands there.
    let mut blank_value = None;
    loop {
        reader.skip_blanks();
        let at = reader.at;
        match reader.peek() {
            None => return Ok(()),
            Some('\n') => {
                reader.next();
                return Ok(());
            }
            Some('#') => reader.skip_comment(),
            Some(';') if words == 0 => return Err(wrong(at, Wrong::Operator(';'))),
            Some(';') => {
                reader.next();
                return match reader.peek() {
                    Some(';') => Err(wrong(reader.at, Wrong::Operator(';'))),
                    _ => Ok(()),
                };
            }
            Some(_) => {
                match word(reader)? {
                    Word::Assignment(assignment) => {
                        let bare = reader.at.column == at.column + assignment.name.len() + 1;
                        blank_value = bare.then(|| (reader.at, assignment.name.clone()));
                        into.push(assignment);
                    }
                    Word::Other(text) if text == "export" && words == 0 => exporting = true,
                    // `export NAME` alone changes nothing that is read here.
                    Word::Other(text) if exporting && is_name(&text) => {}
                    Word::Other(text) => {
                        return Err(match blank_value {
                            Some((blank, name)) => wrong(blank, Wrong::BlankAfterEquals(name)),
                            None => wrong(at, Wrong::Command(text)),
                        });
                    }
                }
                words += 1;
            }
        }
    }
}

/// A word at the place of an assignment.
enum Word {
    Assignment(Assignment),
    Other(String),
}

/// Reads a word: an assignment if it has a name and `=`, both unquoted.
fn word(reader: &mut Reader) -> Result<Word, SyntaxError> {
    let at = reader.at;
    let start = reader.offset();
    let name = reader.take_while(|c| !c.is_whitespace() && !"=+[;\"'\\$`&|<>()".contains(c));
    match reader.peek() {
        Some('=') if is_name(&name) => {
            reader.next();
            let value = value(reader)?;
            let bytes = start..reader.offset();
            Ok(Word::Assignment(Assignment {
                name,
                value,
                at,
                bytes,
            }))
        }
        Some('=') => Err(wrong(at, Wrong::BadName(name))),
        Some('+') if is_name(&name) && reader.second() == Some('=') => {
            Err(wrong(reader.at, Wrong::Append))
        }
        Some('[') if is_name(&name) => Err(wrong(reader.at, Wrong::Array)),
        _ => {
            let rest = value(reader)?;
            let blank = reader.at;
            reader.skip_blanks();
            match reader.peek() {
                Some('=') if rest.is_empty() && is_name(&name) => {
                    Err(wrong(blank, Wrong::BlankBeforeEquals(name)))
                }
                _ => Ok(Word::Other(name + &rest)),
            }
        }
    }
}

/// Reads a value up to the blank, line end or `;` that ends it.
fn value(reader: &mut Reader) -> Result<String, SyntaxError> {
    let mut value = String::new();
    // A shell puts a home directory for `~` at the start of a value and after each colon.
    let mut home_place = true;
    while let Some(c) = reader.peek() {
        let at = reader.at;
        match c {
            ' ' | '\t' | '\n' | ';' => break,
            '\'' => single_quoted(reader, &mut value)?,
            '"' => double_quoted(reader, &mut value)?,
            '\\' => escaped(reader, &mut value)?,
            '$' => dollar(reader, false, &mut value)?,
            '`' => return Err(wrong(at, Wrong::Backtick)),
            '~' if home_place => return Err(wrong(at, Wrong::Tilde)),
            '(' if value.is_empty() => return Err(wrong(at, Wrong::Array)),
            '&' | '|' | '<' | '>' | '(' | ')' => return Err(wrong(at, Wrong::Operator(c))),
            '“' | '”' | '„' | '‘' | '’' if value.is_empty() => {
                return Err(wrong(at, Wrong::FancyQuote(c)));
            }
            '\0' => return Err(wrong(at, Wrong::Nul)),
            _ => value.extend(reader.next()),
        }
        home_place = c == ':';
    }
    Ok(value)
}

/// Reads a backslash outside quotes and what it protects.
fn escaped(reader: &mut Reader, value: &mut String) -> Result<(), SyntaxError> {
    let at = reader.at;
    reader.next();
    match reader.next() {
        Some('\n') => Ok(()),
        Some('\0') => Err(wrong(at, Wrong::Nul)),
        Some(c) => {
            value.push(c);
            Ok(())
        }
        None => Err(wrong(at, Wrong::LastBackslash)),
    }
}

/// Reads `'…'`: everything is itself.
fn single_quoted(reader: &mut Reader, value: &mut String) -> Result<(), SyntaxError> {
    let open = reader.at;
    reader.next();
    loop {
        match reader.next() {
            Some('\'') => return Ok(()),
            Some('\0') => return Err(wrong(open, Wrong::Nul)),
            Some(c) => value.push(c),
            None => return Err(wrong(open, Wrong::OpenQuote('\''))),
        }
    }
}

/// Reads `"…"`: a backslash counts only before `$`, `` ` ``, `"`, `\` and a line break.
fn double_quoted(reader: &mut Reader, value: &mut String) -> Result<(), SyntaxError> {
    let open = reader.at;
    reader.next();
    loop {
        let at = reader.at;
        match reader.peek() {
            None => return Err(wrong(open, Wrong::OpenQuote('"'))),
            Some('"') => {
                reader.next();
                return Ok(());
            }
            Some('$') => dollar(reader, true, value)?,
            Some('`') => return Err(wrong(at, Wrong::Backtick)),
            Some('\0') => return Err(wrong(at, Wrong::Nul)),
            Some('\\') => {
                reader.next();
                match reader.peek() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => return Err(wrong(open, Wrong::OpenQuote('"'))),
                }
                reader.next();
            }
            Some(c) => {
                value.push(c);
                reader.next();
            }
        }
    }
}

/// Reads a `$`, which is itself unless a shell would expand what follows.
fn dollar(reader: &mut Reader, quoted: bool, value: &mut String) -> Result<(), SyntaxError> {
    match reader.second() {
        Some(c @ ('\'' | '"')) if !quoted => Err(wrong(reader.at, Wrong::DollarQuote(c))),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => {
            let at = reader.at;
            reader.next();
            let name = reader.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            Err(wrong(at, Wrong::Expansion(format!("${name}"))))
        }
        Some(c) if c.is_ascii_digit() || "{(@*#?!$-".contains(c) => {
            Err(wrong(reader.at, Wrong::Expansion(format!("${c}"))))
        }
        _ => {
            value.extend(reader.next());
            Ok(())
        }
    }
}

/// Whether a shell takes `text` as the name of a variable.
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn wrong(at: Position, what: Wrong) -> SyntaxError {
    SyntaxError { at, what }
}

/// The text, character by character, with its place. CR LF is read as LF.
struct Reader<'a> {
    rest: &'a str,
    /// Bytes in all of the text.
    bytes: usize,
    at: Position,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader {
            rest: text,
            bytes: text.len(),
            at: Position { line: 1, column: 1 },
        }
    }

    /// Bytes before the next character.
    fn offset(&self) -> usize {
        self.bytes - self.rest.len()
    }

    fn peek(&self) -> Option<char> {
        if self.rest == "\r" || self.rest.starts_with("\r\n") {
            return Some('\n');
        }
        self.rest.chars().next()
    }

    /// The character after the next one.
    fn second(&self) -> Option<char> {
        self.rest.chars().nth(1)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        let bytes = match self.rest.starts_with("\r\n") {
            true => 2,
            false => c.len_utf8(),
        };
        self.rest = &self.rest[bytes..];
        match c {
            '\n' => {
                self.at.line += 1;
                self.at.column = 1;
            }
            _ => self.at.column += 1,
        }
        Some(c)
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|&c| wanted(c)) {
            taken.push(c);
            self.next();
        }
        taken
    }

    /// Skips blanks and line continuations.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => {
                    self.next();
                }
                Some('\\') if self.rest.starts_with("\\\n") || self.rest.starts_with("\\\r\n") => {
                    self.next();
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn skip_comment(&mut self) {
        self.take_while(|c| c != '\n');
    }
}

//! GRUB's script language, taken apart: statements, and the branches and blocks that they are in. Pure;
//! called by [`super::grub_cfg`], which knows what they mean.

/// A statement, or the head of a branch, without quotes and without braces around names.
pub(super) struct Statement {
    pub(super) text: String,
    /// The branches and blocks around it, outermost first.
    pub(super) within: Vec<String>,
}

impl Statement {
    pub(super) fn first_word(&self) -> &str {
        first_word(&self.text)
    }

    /// The value that it gives to a variable.
    pub(super) fn sets(&self, name: &str) -> Option<&str> {
        let assignment = self.text.strip_prefix("set ").unwrap_or(&self.text);
        assignment.strip_prefix(name)?.strip_prefix('=')
    }

    /// It is carried out when the file is read, rather than when an entry starts or a function is
    /// called.
    pub(super) fn is_run(&self) -> bool {
        let is_later = |block: &String| {
            matches!(
                first_word(block),
                "menuentry" | "submenu" | "function" | "{"
            )
        };
        !self.within.iter().any(is_later)
    }
}

/// Takes a text apart.
pub(super) fn parse(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut within: Vec<String> = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Open => {
                let head = statements.last();
                within.push(head.map_or("{".into(), |last: &Statement| last.text.clone()));
            }
            Piece::Close => drop(within.pop()),
            Piece::Text(text) => match first_word(&text) {
                "fi" => drop(within.pop()),
                "if" | "elif" | "else" => {
                    if first_word(&text) != "if" {
                        within.pop();
                    }
                    statements.push(Statement {
                        text: text.clone(),
                        within: within.clone(),
                    });
                    within.push(text);
                }
                _ => statements.push(Statement {
                    text,
                    within: within.clone(),
                }),
            },
        }
    }
    statements
}

/// A part of a text.
enum Piece {
    Text(String),
    Open,
    Close,
}

/// Statements and braces, without comments, quotes, and the words around branches.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for line in text.lines() {
        let mut statement = String::new();
        let mut quote = None;
        let mut last = ' ';
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            let starts_word = last.is_whitespace() || last == ';';
            match letter {
                _ if quote == Some(letter) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(letter),
                // Braces around a name, in quotes too.
                '{' if last == '$' => {
                    statement.extend(letters.by_ref().take_while(|letter| *letter != '}'));
                }
                _ if quote.is_some() => statement.push(letter),
                '#' if starts_word => break,
                ';' => end(&mut statement, &mut pieces),
                '{' | '}' if starts_word => {
                    end(&mut statement, &mut pieces);
                    pieces.push(match letter {
                        '{' => Piece::Open,
                        _ => Piece::Close,
                    });
                }
                _ => statement.push(letter),
            }
            last = letter;
        }
        end(&mut statement, &mut pieces);
    }
    pieces
}

/// Ends a statement.
fn end(statement: &mut String, pieces: &mut Vec<Piece>) {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let words = match words.as_slice() {
        ["then" | "do", rest @ ..] => rest,
        // `else` needs no semicolon before what it does.
        ["else", rest @ ..] => {
            pieces.push(Piece::Text("else".into()));
            rest
        }
        all => all,
    };
    if !words.is_empty() {
        pieces.push(Piece::Text(words.join(" ")));
    }
    statement.clear();
}

pub(super) fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_what_is_around_them() {
        let text = "if [ -n \"${a}\" ]; then if [ b ]; then c; fi; else d 'e; f' # g\nfi\n\
                    menuentry 'x' --id y { set z=\"1\"; h }\ni ${j}k\n";
        let found: Vec<(String, Vec<String>)> = parse(text)
            .into_iter()
            .map(|statement| (statement.text, statement.within))
            .collect();
        let expected: [(&str, &[&str]); 8] = [
            ("if [ -n $a ]", &[]),
            ("if [ b ]", &["if [ -n $a ]"]),
            ("c", &["if [ -n $a ]", "if [ b ]"]),
            ("else", &[]),
            ("d e; f", &["else"]),
            ("menuentry x --id y", &[]),
            ("set z=1", &["menuentry x --id y"]),
            ("h", &["menuentry x --id y"]),
        ];
        for (found, (text, within)) in found.iter().zip(expected) {
            assert_eq!(found.0, text);
            assert_eq!(found.1, within, "{text}");
        }
        assert_eq!(found[8], ("i $jk".to_owned(), Vec::new()));
        assert_eq!(found.len(), 9);
    }
}

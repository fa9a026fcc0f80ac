//! GRUB's environment block, `grubenv`: exactly 1024 bytes, a header, `name=value` lines, and `#`
//! up to the end (GNU GRUB manual, "The GRUB environment block").

/// Size of the block in bytes; GRUB writes it in place and can't make it longer.
const BYTES: usize = 1024;

const HEADER: &str = "# GRUB Environment Block\n";

/// Why a block can't be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrubenvError {
    /// It is not 1024 bytes with the header.
    #[error("it is not an environment block of {BYTES} bytes")]
    Damaged,
    /// One more variable does not fit.
    #[error("it is full")]
    Full,
}

/// An empty block.
pub fn empty() -> String {
    format!("{HEADER:#<BYTES$}")
}

/// The value of a variable.
pub fn get<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    variables(block)
        .ok()?
        .into_iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The block with a variable set; everything else stays in its order.
pub fn set(block: &str, name: &str, value: &str) -> Result<String, GrubenvError> {
    let new = format!("{name}={value}");
    let mut lines: Vec<&str> = variables(block)?;
    let of_name = |line: &&str| line.split('=').next() == Some(name);
    match lines.iter().position(of_name) {
        Some(at) => lines[at] = &new,
        None => lines.push(&new),
    }
    let mut text = String::from(HEADER);
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    if text.len() > BYTES {
        return Err(GrubenvError::Full);
    }
    Ok(format!("{text:#<BYTES$}"))
}

/// The `name=value` lines.
fn variables(block: &str) -> Result<Vec<&str>, GrubenvError> {
    let body = block
        .strip_prefix(HEADER)
        .filter(|_| block.len() == BYTES)
        .ok_or(GrubenvError::Damaged)?;
    Ok(body
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains('='))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_added_then_replaced_and_the_block_keeps_its_size() {
        let block = set(&empty(), "saved_entry", "0").unwrap();
        let block = set(&block, "next_entry", "balena-migrate").unwrap();
        let block = set(&block, "next_entry", "").unwrap();
        assert_eq!(block.len(), 1024);
        assert!(block.starts_with("# GRUB Environment Block\nsaved_entry=0\nnext_entry=\n###"));
        assert_eq!(get(&block, "saved_entry"), Some("0"));
        assert_eq!(get(&block, "next_entry"), Some(""));
        assert_eq!(get(&block, "entry"), None);
    }

    #[test]
    fn a_block_of_another_size_is_damaged() {
        assert_eq!(
            set("# GRUB Environment Block\na=b\n", "x", "y"),
            Err(GrubenvError::Damaged)
        );
    }

    #[test]
    fn a_full_block_is_said_to_be_full() {
        let block = set(&empty(), "a", &"x".repeat(900)).unwrap();
        assert_eq!(set(&block, "b", &"y".repeat(200)), Err(GrubenvError::Full));
    }
}

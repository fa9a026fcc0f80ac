//! What UEFI firmware keeps about starting systems: names and contents of its variables (UEFI
//! specification 2.10, 3.3), and of those of systemd-boot (the Boot Loader Interface). Pure; who
//! reads and writes them is [`crate::sys::efivars`].
//!
//! A variable is named as efivarfs names its file: `BootNext-8be4df61-…`.

pub mod gpt;
pub mod load_option;

use self::load_option::LoadOption;
use crate::payload::digest::{hex, unhex};

/// The vendor GUID of the specification's own variables.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The vendor GUID of the variables that boot loaders share with Linux systems.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// EFI_VARIABLE_NON_VOLATILE, _BOOTSERVICE_ACCESS and _RUNTIME_ACCESS.
const PERSISTENT: u32 = 7;

/// The kind of an EFI system partition in an MBR.
pub const MBR_KIND: u8 = 0xef;

/// The description of the boot entry that starts stage 2, by which it is known as ours.
pub const OUR_ENTRY: &str = "balena-migrate";

/// The description of the boot entry of the new system, as balena's own installer calls it.
pub const NEW_ENTRY: &str = "resinOS";

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// What it is for and when it can be seen: EFI_VARIABLE_*.
    pub attributes: u32,
    /// Its value.
    pub value: Vec<u8>,
}

impl Variable {
    /// One that lasts.
    pub fn persistent(value: Vec<u8>) -> Variable {
        Variable {
            attributes: PERSISTENT,
            value,
        }
    }

    /// Takes what a file of efivarfs has: four bytes of attributes, then the value.
    pub fn parse(file: &[u8]) -> Option<Variable> {
        let (attributes, value) = file.split_at_checked(4)?;
        Some(Variable {
            attributes: u32::from_le_bytes(attributes.try_into().ok()?),
            value: value.to_vec(),
        })
    }

    /// Takes what [`Variable::hex`] gave.
    pub fn from_hex(digits: &str) -> Option<Variable> {
        Variable::parse(&unhex(digits)?)
    }

    /// The file in hex digits.
    pub fn hex(&self) -> String {
        hex(&self.to_bytes())
    }

    /// What goes into the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(&self.value);
        bytes
    }
}

/// A variable of the specification's own.
pub fn global(name: &str) -> String {
    format!("{name}-{GLOBAL}")
}

/// A variable of the Boot Loader Interface.
pub fn loader(name: &str) -> String {
    format!("{name}-{LOADER}")
}

/// The variable that names the entry for the next boot only. The firmware removes it before it
/// starts that entry.
pub fn boot_next() -> String {
    global("BootNext")
}

/// The variable that names the entries in the order in which they are tried.
pub fn boot_order() -> String {
    global("BootOrder")
}

/// The variable of the boot entry of that number.
pub fn boot_entry(number: u16) -> String {
    global(&format!("Boot{number:04X}"))
}

/// The number of the boot entry that the variable `name` is; `None` for all others.
pub fn entry_number(name: &str) -> Option<u16> {
    let digits = name
        .strip_suffix(GLOBAL)?
        .strip_suffix('-')?
        .strip_prefix("Boot")?;
    let is_number = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// The entries that a value such as BootOrder's names.
pub fn numbers(value: &[u8]) -> Vec<u16> {
    value
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

/// A value that names these entries.
pub fn numbers_value(numbers: &[u16]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

/// The lowest number that is none of `taken`.
pub fn free_number(taken: &[u16]) -> Option<u16> {
    (0..=u16::MAX).find(|number| !taken.contains(number))
}

/// A text as the firmware spells it, with the NUL at its end.
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// The text up to the first NUL.
pub fn text(bytes: &[u8]) -> String {
    let units: Vec<u16> = numbers(bytes)
        .into_iter()
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

/// The texts of a list in which each ends in a NUL.
pub fn texts(bytes: &[u8]) -> Vec<String> {
    numbers(bytes)
        .split(|unit| *unit == 0)
        .filter(|units| !units.is_empty())
        .map(String::from_utf16_lossy)
        .collect()
}

/// Whether what a variable holds now is still what was put there: firmware may rewrite boot entries,
/// but does not change what they are called.
pub fn is_still(now: &Variable, put: &Variable) -> bool {
    let name = |variable: &Variable| {
        LoadOption::parse(&variable.value).map(|option| (option.description, option.path))
    };
    now.value == put.value || name(now).is_some_and(|now| Some(now) == name(put))
}

/// Whether two values are boot entries of the same name for the same program, wherever its partition lies.
pub fn is_same_entry(one: &Variable, other: &Variable) -> bool {
    let parts = |variable: &Variable| {
        let option = LoadOption::parse(&variable.value)?;
        let partition = option.partition().map(|drive| drive.id.clone());
        let file = option.file().map(str::to_owned);
        Some((option.description, partition, file))
    };
    parts(one).is_some_and(|one| Some(one) == parts(other))
}

/// The name of the boot program on removable media, and on disks without an entry of their own, for
/// firmware of so many bits.
pub fn removable_loader(bits: u32) -> &'static str {
    match bits {
        32 => "BOOTIA32.EFI",
        _ => "BOOTX64.EFI",
    }
}

#[cfg(test)]
mod tests {
    use super::load_option::{HardDrive, Node, PartitionId};
    use super::*;

    #[test]
    fn only_boot_entries_have_numbers() {
        let name = boot_entry(0x1a);
        assert_eq!(name, "Boot001A-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(entry_number(&name), Some(0x1a));
        assert_eq!(entry_number(&global("Boot00fe")), Some(0xfe));
        for other in [
            boot_next(),
            boot_order(),
            global("BootCurrent"),
            global("Boot+123"),
            global("Boot12345"),
            loader("Boot0001"),
            "Boot0001".to_owned(),
        ] {
            assert_eq!(entry_number(&other), None, "{other}");
        }
    }

    #[test]
    fn texts_and_numbers_are_little_endian() {
        assert_eq!(numbers(&[1, 0, 0x0a, 0xb0, 9]), [1, 0xb00a]);
        assert_eq!(numbers_value(&[1, 0xb00a]), [1, 0, 0x0a, 0xb0]);
        assert_eq!(utf16("aé"), [b'a', 0, 0xe9, 0, 0, 0]);
        assert_eq!(text(&utf16("aé")), "aé");
        assert_eq!(
            texts(&[utf16("a.conf"), utf16("b")].concat()),
            ["a.conf", "b"]
        );
        assert_eq!(free_number(&[0, 1, 3]), Some(2));
        let variable = Variable::persistent(vec![0xab]);
        assert_eq!(variable.hex(), "07000000ab");
        assert_eq!(Variable::from_hex(&variable.hex()), Some(variable));
        assert_eq!(Variable::from_hex("0700"), None);
    }

    #[test]
    fn an_entry_that_the_firmware_has_rewritten_is_still_the_same() {
        let option = LoadOption {
            attributes: 1,
            description: "x".to_owned(),
            path: vec![Node::File("\\a".to_owned())],
            rest: Vec::new(),
            data: vec![1],
        };
        let put = Variable::persistent(option.to_bytes());
        let with = |change: fn(&mut LoadOption)| {
            let mut other = option.clone();
            change(&mut other);
            Variable::persistent(other.to_bytes())
        };
        assert!(is_still(&with(|option| option.attributes = 9), &put));
        assert!(is_still(&with(|option| option.data.clear()), &put));
        assert!(!is_still(
            &with(|option| option.description.push('y')),
            &put
        ));
        assert!(!is_still(&with(|option| option.path.clear()), &put));
        // The same program on a partition that has grown since; another program.
        let drive = |sectors| {
            Node::HardDrive(HardDrive {
                number: 1,
                start: 8,
                sectors,
                id: PartitionId::Gpt("11111111-2222-3333-4444-555555555555".to_owned()),
            })
        };
        let on = |sectors, file: &str| {
            let mut other = option.clone();
            other.path = vec![drive(sectors), Node::File(file.to_owned())];
            Variable::persistent(other.to_bytes())
        };
        assert!(is_same_entry(&on(9, "\\a"), &on(5, "\\a")));
        assert!(!is_still(&on(9, "\\a"), &on(5, "\\a")));
        assert!(!is_same_entry(&on(9, "\\a"), &on(9, "\\b")));
        let next = |number| Variable::persistent(numbers_value(&[number]));
        assert!(is_still(&next(5), &next(5)));
        assert!(!is_still(&next(4), &next(5)));
    }
}

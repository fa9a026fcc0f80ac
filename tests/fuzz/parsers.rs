//! Every parser that reads foreign text or bytes, as a function of bytes that must not panic.
//!
//! `target.rs` gives each to libFuzzer; `tests/fuzz_corpus.rs` replays what was found before.

use std::io::{self, Cursor, Write};
use std::rc::Rc;

use balena_migrate::backup::{definition, inspect};
use balena_migrate::boot::{cmdline, grubenv};
use balena_migrate::checksums;
use balena_migrate::config::{self, Overrides, balena, edit, shell};
use balena_migrate::efi::gpt;
use balena_migrate::efi::load_option::LoadOption;
use balena_migrate::extract::disk::{self, Window};
use balena_migrate::extract::{self, list, open};
use balena_migrate::handover::Handover;
use balena_migrate::host::NetworkKind;
use balena_migrate::initramfs::decompress;
use balena_migrate::initramfs::modules::{ModuleTree, REQUIRED, Texts, resolve};
use balena_migrate::kernel_args;
use balena_migrate::network::bind::Links;
use balena_migrate::network::select::{Selection, read_list};
use balena_migrate::network::{self, Source};
use balena_migrate::payload::scan::scan;
use balena_migrate::superblock;
use balena_migrate::sys::Sys;

/// A parser by the name of its target.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const PARSERS: &[Parser] = &[
    ("config", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = config::merge("/c/x.conf", text, "/c", &Overrides::default());
        }
    }),
    ("config_edit", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            set_key("IMAGE_NAME", "image.gz", text);
            set_key("HOME_DIR", "it's $HOME", text);
        }
    }),
    ("checksums_list", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            note(text);
        }
    }),
    ("config_json", |bytes| {
        let _ = balena::inspect("config.json", bytes.to_vec());
    }),
    ("backup_definition", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = definition::parse("backup.yml", text, "/c");
        }
    }),
    ("backup_archive", |bytes| {
        let _ = inspect::inspect(bytes);
    }),
    ("image", |bytes| {
        let scratch = tempfile::tempfile().expect("making a temporary file");
        let _ = scan(Cursor::new(bytes), scratch, true, &mut |_| ());
    }),
    ("extract", |bytes| {
        let mut file = tempfile::tempfile().expect("making a temporary file");
        file.write_all(bytes).expect("filling it");
        let image = Window::all(disk::Source::File(file), Some(bytes.len() as u64));
        let sys = Sys::new("/dev/null");
        let silent: Rc<dyn open::Notice> = Rc::new(Silent);
        let found = open::unpack(&sys, image, &Silent)
            .and_then(|opened| extract::look_into(&sys, opened, &silent));
        let _ = found.map(|found| list::list("x", &found, &Silent));
    }),
    ("handover", |bytes| {
        let _ = Handover::parse(bytes);
    }),
    ("superblock", |bytes| {
        let _ = superblock::identify(bytes);
        let _ = superblock::table_identity(bytes, 512);
        let _ = superblock::table_identity(bytes, 4096);
    }),
    ("gpt", |bytes| {
        let mut read = |at: u64, len: usize| {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
            let rest = rest.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            Ok(rest[..len.min(rest.len())].to_vec())
        };
        for sector in [512, 4096] {
            let _ = gpt::entries(sector, &mut read);
        }
    }),
    ("load_option", |bytes| {
        if let Some(option) = LoadOption::parse(bytes) {
            let _ = option.to_bytes();
        }
    }),
    ("grubenv", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = grubenv::get(text, "next_entry");
            let _ = grubenv::armed(text, "x");
        }
    }),
    ("kernel_args", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = cmdline::for_stage2(text, "/init");
            let _ = kernel_args::module_options(text, "nvme_core");
        }
    }),
    ("module_tree", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let (dep, rest) = text.split_once('\0').unwrap_or((text, ""));
            let (softdep, alias) = rest.split_once('\0').unwrap_or((rest, ""));
            let texts = Texts {
                dep,
                softdep,
                builtin: dep,
                alias,
            };
            let _ = resolve(&ModuleTree::parse("/lib/modules/x", texts), &REQUIRED, &[]);
        }
    }),
    ("module_file", |bytes| {
        for end in ["ko", "ko.gz", "ko.xz", "ko.zst"] {
            let _ = decompress::module(&format!("/m.{end}"), bytes.to_vec());
        }
    }),
    ("wifi_list", |bytes| {
        let _ = read_list("migrate-wifis", bytes);
    }),
    ("wpa_supplicant", |bytes| {
        carry(
            "/etc/wpa_supplicant/wpa_supplicant.conf",
            NetworkKind::WpaSupplicant,
            bytes,
        )
    }),
    ("network_manager", |bytes| {
        carry(
            "/etc/NetworkManager/system-connections/a",
            NetworkKind::NetworkManager,
            bytes,
        )
    }),
    ("connman", |bytes| {
        carry(
            "/var/lib/connman/wifi_1_2_managed_psk/settings",
            NetworkKind::Connman,
            bytes,
        )
    }),
    ("iwd", |bytes| {
        carry("/var/lib/iwd/name.psk", NetworkKind::Iwd, bytes)
    }),
    ("netplan", |bytes| {
        carry("/etc/netplan/01.yaml", NetworkKind::Netplan, bytes)
    }),
    ("ifupdown", |bytes| {
        carry("/etc/network/interfaces", NetworkKind::Ifupdown, bytes)
    }),
    ("dhcpcd", |bytes| {
        carry("/etc/dhcpcd.conf", NetworkKind::Dhcpcd, bytes)
    }),
    ("networkd", |bytes| {
        carry(
            "/etc/systemd/network/10.network",
            NetworkKind::Networkd,
            bytes,
        )
    }),
];

/// Sets a key in a text; all others keep their values.
fn set_key(name: &str, value: &str, text: &str) {
    let Ok(edited) = edit::set(text, name, value) else {
        return;
    };
    let read = |text: &str| shell::parse(text).expect("it can be read");
    let others = |text: &str| -> Vec<(String, String)> {
        let read = read(text).into_iter();
        let others = read.filter(|known| known.name != name);
        others.map(|known| (known.name, known.value)).collect()
    };
    assert_eq!(others(&edited), others(text), "{text:?}");
    let last = read(&edited).into_iter().rfind(|known| known.name == name);
    assert_eq!(last.map(|last| last.value).as_deref(), Some(value));
    let again = edit::set(&edited, name, value);
    assert_eq!(again.as_deref(), Ok(edited.as_str()), "{text:?}");
}

/// Puts files into a list of checksums, twice.
fn note(text: &str) {
    let files = [("image.gz", 'a'), ("my\nfile", 'b')];
    let files = files.map(|(name, digit)| (name.to_owned(), digit.to_string().repeat(64)));
    let noted = checksums::noted(text, &files, (512, &files[0].1));
    let is_ours = |line: &&str| line.ends_with("  image.gz");
    let lines: Vec<&str> = noted.lines().filter(is_ours).collect();
    assert_eq!(lines.len(), 1, "{text:?}");
    let again = checksums::noted(&noted, &files, (512, &files[0].1));
    assert_eq!(again, noted, "{text:?}");
}

/// Nobody who wants to know how far it is.
struct Silent;

impl open::Notice for Silent {
    fn tell(&self, _: String) {}

    fn at(&self, _: &'static str, _: u64, _: Option<u64>) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a network file, and writes keyfiles of what was understood.
fn carry(path: &str, kind: NetworkKind, bytes: &[u8]) {
    // A machine without files: what a configuration names is missing.
    let sys = Sys::new("/dev/null");
    let links = Links {
        interfaces: &[],
        live: &[],
    };
    let selection = Selection {
        all: true,
        listed: Vec::new(),
    };
    let source = Source { path, kind, bytes };
    let _ = network::carry(&sys, &[source], &links, &selection);
}

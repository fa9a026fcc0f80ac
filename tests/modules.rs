//! Kernel modules as distributions compress them, with the programs that they use.

use balena_migrate::initramfs::decompress::module as unpacked;
use std::process::{Command, Stdio};

fn packed_by(program: &str, options: &[&str], content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("module");
    std::fs::write(&input, content).unwrap();
    let output = Command::new(program)
        .args(options)
        .arg("-c")
        .stdin(std::fs::File::open(&input).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success());
    output.stdout
}

fn a_module() -> Vec<u8> {
    let mut module = b"\x7fELF".to_vec();
    module.extend((0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()));
    module
}

#[test]
fn what_the_usual_programs_made() {
    let module = a_module();
    for (program, options, end) in [
        ("gzip", &["-9n"][..], "gz"),
        // As the kernel's own scripts/Makefile.modinst calls them.
        ("xz", &["--check=crc32", "--lzma2=dict=1MiB"], "xz"),
        ("xz", &["--check=crc32", "--x86", "--lzma2=dict=1MiB"], "xz"),
        ("zstd", &["-q", "-T0"], "zst"),
    ] {
        let packed = packed_by(program, options, &module);
        let path = format!("/lib/modules/x/a.ko.{end}");
        assert!(unpacked(&path, packed).unwrap() == module, "{options:?}");
    }
    assert!(unpacked("a.ko", module.clone()).unwrap() == module);
}

#[test]
fn damage_is_an_error() {
    let mut packed = packed_by("gzip", &["-n"], &a_module());
    packed.truncate(packed.len() - 9);
    assert!(unpacked("a.ko.gz", packed).is_err());
    for path in ["a.ko", "a.ko.gz", "a.ko.xz", "a.ko.zst", "a.ko.br"] {
        assert!(unpacked(path, b"junk".to_vec()).is_err(), "{path}");
    }
}

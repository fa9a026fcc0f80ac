//! Unpacks module files, which distributions compress in different ways. Called by the builder of
//! the initramfs: the kernel itself can unpack modules only since 5.17, and only if built so.

use std::io::{self, Read};

/// The module in a file of that name: `.ko` as it is, `.ko.gz`, `.ko.xz` and `.ko.zst` unpacked.
///
/// # Errors
///
/// Damaged or unknown compression, and content that is no ELF file.
pub(super) fn module(path: &str, packed: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut module = Vec::new();
    match path.rsplit('.').next() {
        Some("ko") => module = packed,
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut module)?;
        }
        Some("xz") => {
            lzma_rust2::XzReader::new(&packed[..], true).read_to_end(&mut module)?;
        }
        Some("zst") => {
            ruzstd::decoding::StreamingDecoder::new(&packed[..])
                .map_err(io::Error::other)?
                .read_to_end(&mut module)?;
        }
        _ => return Err(io::Error::other("compressed in an unknown way")),
    }
    match module.starts_with(b"\x7fELF") {
        true => Ok(module),
        false => Err(io::Error::other("not a kernel module")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            assert!(
                super::module(&path, packed).unwrap() == module,
                "{options:?}"
            );
        }
        assert!(super::module("a.ko", module.clone()).unwrap() == module);
    }

    #[test]
    fn damage_is_an_error() {
        let mut packed = packed_by("gzip", &["-n"], &a_module());
        packed.truncate(packed.len() - 9);
        assert!(module("a.ko.gz", packed).is_err());
        for path in ["a.ko", "a.ko.gz", "a.ko.xz", "a.ko.zst", "a.ko.br"] {
            assert!(module(path, b"junk".to_vec()).is_err(), "{path}");
        }
    }
}

//! Unpacks module files, which distributions compress in different ways. Called by the builder of
//! the initramfs: the kernel itself can unpack modules only since 5.17, and only if built so.

use std::io::{self, Read};

/// The module in a file of that name: `.ko` as it is, `.ko.gz`, `.ko.xz` and `.ko.zst` unpacked.
///
/// # Errors
///
/// Damaged or unknown compression, and content that is no ELF file.
pub fn module(path: &str, packed: Vec<u8>) -> io::Result<Vec<u8>> {
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
            zstd::stream::read::Decoder::new(&packed[..])?.read_to_end(&mut module)?;
        }
        _ => return Err(io::Error::other("compressed in an unknown way")),
    }
    match module.starts_with(b"\x7fELF") {
        true => Ok(module),
        false => Err(io::Error::other("not a kernel module")),
    }
}

//! Which release an ARM kernel is of: its header does not say, but what it prints first does. Called by
//! the collector.

use std::io::Read;

use flate2::read::GzDecoder;

/// What a kernel prints first, before its release.
const BANNER: &[u8] = b"Linux version ";

/// The start of a gzip member with deflate (RFC 1952).
const GZIP: &[u8] = b"\x1f\x8b\x08";

/// How far into an image its compressed part begins at most: a zImage has its unpacking code before it.
const UNPACKER_BYTES: usize = 1 << 20;

/// Longest release that Linux has (`__NEW_UTS_LEN`).
const RELEASE_BYTES: usize = 64;

/// The release of an image: plain, gzip as a whole (`kernel8.img`), or a zImage with gzip in it. `None`
/// for others.
pub(super) fn release(image: &[u8]) -> Option<String> {
    if let Some(found) = search(image) {
        return Some(found);
    }
    let head = &image[..image.len().min(UNPACKER_BYTES)];
    let starts = head.windows(GZIP.len()).enumerate();
    let starts = starts.filter(|(_, bytes)| *bytes == GZIP);
    starts
        .map(|(start, _)| start)
        .find_map(|start| search_in(GzDecoder::new(&image[start..])))
}

/// Looks into what `source` has before it ends or fails.
fn search_in(mut source: impl Read) -> Option<String> {
    let overlap = BANNER.len() + RELEASE_BYTES;
    let mut window = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => read,
        };
        window.extend_from_slice(&buffer[..read]);
        if let Some(found) = search(&window) {
            return Some(found);
        }
        window.drain(..window.len().saturating_sub(overlap));
    }
}

fn search(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    loop {
        // Two steps: most bytes are no L.
        let at = rest.iter().position(|byte| *byte == BANNER[0])?;
        rest = &rest[at..];
        if let Some(found) = rest.strip_prefix(BANNER).and_then(name) {
            return Some(found);
        }
        rest = &rest[1..];
    }
}

/// The release that `bytes` begin with.
fn name(bytes: &[u8]) -> Option<String> {
    let bytes = &bytes[..bytes.len().min(RELEASE_BYTES + 1)];
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    text.starts_with(|letter: char| letter.is_ascii_digit())
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    /// A kernel with its banner behind `before` bytes.
    fn kernel(before: usize) -> Vec<u8> {
        let mut bytes = vec![b'L'; before];
        bytes
            .extend_from_slice(b"Linux version %s\0Linux version 6.6.51+rpt-rpi-v8 (serge@x) #1\0");
        bytes
    }

    #[test]
    fn plain_packed_and_with_an_unpacker() {
        let wanted = Some("6.6.51+rpt-rpi-v8".to_owned());
        assert_eq!(release(&kernel(100)), wanted);
        // Over the end of a piece that is read.
        for before in (256 << 10) - 90..256 << 10 {
            assert_eq!(release(&gzip(&kernel(before))), wanted, "{before}");
        }
        let unpacker = [&[0x1f, 0x8b, 0x08, 0xff, 7, 7][..], &[0; 20_000]].concat();
        assert_eq!(release(&[unpacker, gzip(&kernel(9))].concat()), wanted);
        assert_eq!(release(&[0; 5000]), None);
        assert_eq!(release(b"Linux version 6"), None);
    }
}

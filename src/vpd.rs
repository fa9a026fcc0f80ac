//! Vital product data of SCSI disks, which SATA disks and most virtual ones have too: the serial number.
//! Read by the collector and by stage 2, which must see the same.

/// Where the kernel shows the page with the serial number, below the folder of a disk.
pub const SERIAL_PAGE: &str = "device/vpd_pg80";

/// The serial number in that page (SPC-4, 7.8.15): four bytes, the last two of which are the length,
/// then text padded with blanks.
pub fn serial(page: &[u8]) -> Option<String> {
    let (&[_, 0x80, high, low], text) = page.split_first_chunk()? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_page_without_its_padding() {
        assert_eq!(serial(b"\0\x80\0\x08  S21PNX").as_deref(), Some("S21PNX"));
        assert_eq!(serial(b"\0\x80\0\x02S21PNX").as_deref(), Some("S2"));
        for none in [
            &b"\0\x80\0\x04    "[..],
            b"\0\x80\0\x09S21",
            b"\0\x83\0\x03S21",
            b"\0\x80\0\x02\xff\xff",
            b"\0\x80\0",
        ] {
            assert_eq!(serial(none), None);
        }
    }
}

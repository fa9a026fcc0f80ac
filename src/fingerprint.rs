//! `balenaos.fingerprint` on the boot partition of balenaOS: the MD5 of each file there, as md5sum
//! writes it. Stage 1 looks whether it is true of the image, stage 2 whether it still is afterwards.

use std::io::{self, Read};

use md5::{Digest, Md5};

use crate::payload::digest::hex;

/// Its name.
pub const FILE: &str = "balenaos.fingerprint";

/// MD5 (32 lower-case hex digits) and path (without a slash at its start) of each file it names.
pub fn parse(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let (md5, path) = line.split_once([' ', '\t'])?;
            // md5sum marks a file that it read as binary with a star.
            let path = path.trim_start().trim_start_matches('*');
            let path = path.trim_start_matches("./").trim_start_matches('/');
            let is_md5 = md5.len() == 32 && md5.bytes().all(|byte| byte.is_ascii_hexdigit());
            (is_md5 && !path.is_empty()).then(|| (md5.to_ascii_lowercase(), path.to_owned()))
        })
        .collect()
}

/// MD5 of all that `source` has, 32 lower-case hex digits.
pub fn md5_of(source: &mut impl Read) -> io::Result<String> {
    let mut hash = Md5::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_md5sum_writes_them() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let text = format!(
            "{md5}  ./EFI/BOOT/bootx64.efi\n{md5} */a b\n{}  c\n# x\n\n{md5}\n\\{md5}  d\\n\n",
            md5.to_uppercase()
        );
        let paths: Vec<String> = parse(&text)
            .into_iter()
            .inspect(|(found, _)| assert_eq!(found, md5))
            .map(|(_, path)| path)
            .collect();
        assert_eq!(paths, ["EFI/BOOT/bootx64.efi", "a b", "c"]);
        assert_eq!(md5_of(&mut io::empty()).unwrap(), md5);
    }
}

//! The partitions of a GPT by their GUIDs.

mod tables;

use std::io;

use balena_migrate::efi::gpt::{EFI_SYSTEM, Entry, entries};

fn read(disk: &[u8]) -> io::Result<Vec<Entry>> {
    entries(512, &mut |at, len| {
        let at = at as usize;
        let part = disk.get(at..at + len);
        part.map(<[u8]>::to_vec)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    })
}

#[test]
fn the_partitions_of_a_table_made_by_sfdisk() {
    let disk = tables::disk(
        "label: gpt\n1 : size=2048, type=U, uuid=11111111-2222-3333-4444-555555555555\n\
         3 : size=2048, uuid=AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE\n",
    );
    let found = read(&disk).unwrap();
    let [esp, other] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((esp.number, esp.kind.as_str()), (1, EFI_SYSTEM));
    assert_eq!(esp.guid, "11111111-2222-3333-4444-555555555555");
    assert_eq!(other.number, 3);
    assert_eq!(other.guid, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
    let mut damaged = disk;
    damaged[512 + 80..512 + 84].fill(0xff);
    assert!(read(&damaged).is_err());
}

#[test]
fn another_disk_has_none() {
    assert_eq!(read(&[0; 2048]).unwrap(), []);
}

//! Secrets stay out of an initramfs that everybody can read: on a FAT boot partition there are no owners and,
//! as it is mounted by default, no permissions. They wait in files for root alone, where stage 2 leaves its
//! report too.

use crate::handover::{FilePath, Firmware, Handover};
use crate::host::Host;
use crate::initramfs::SmallFile;
use crate::step::core::Aside;
use crate::step::{Expect, Step, Writers};

/// Whether everybody may read an initramfs at `path`.
pub fn is_needed(host: &Host, path: &str) -> bool {
    let mount = host.mount_of(path);
    host.firmware.kind() == Firmware::Board || mount.is_some_and(|mount| mount.everybody_reads)
}

/// Takes the files for the new system out of those that are packed with stage 2. `folder` is the one for the
/// report. Gives the steps that write them there, and where each of them is.
pub fn take_out(
    handover: &mut Handover,
    packed: &mut Vec<SmallFile>,
    folder: &str,
) -> (Vec<Step>, Vec<Aside>) {
    let report = handover.report.clone();
    let (mut steps, mut files) = (Vec::new(), Vec::new());
    for (number, file) in handover.install.iter_mut().enumerate() {
        let name = format!("install-{number}");
        let path = format!("{folder}/{name}");
        let taken = packed.extract_if(.., |packed| packed.path == file.content);
        steps.extend(taken.map(|taken| Step::WriteFile {
            path: path.clone(),
            content: taken.content,
            mode: 0o600,
            expect: Expect::Anything,
            writers: Writers::People,
        }));
        file.from = Some(FilePath {
            fs: report.fs.clone(),
            path: format!("{}/{name}", report.dir),
        });
        files.push(Aside {
            content: file.content.clone(),
            path,
        });
    }
    (steps, files)
}

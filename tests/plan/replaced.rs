//! Boot files that are replaced, on boards: what they were is kept beside them.

use balena_migrate::step::Step;

use super::{case, handover, written};

#[test]
fn a_boot_file_is_kept_beside_it_before_it_changes() {
    for (host, path) in [
        ("raspios-9-pi-3", "/boot/config.txt"),
        ("debian-10-beaglebone-black", "/boot/uEnv.txt"),
        ("debian-12-beaglebone-black", "/boot/extlinux/extlinux.conf"),
    ] {
        let mut case = case(host);
        case.host.taken = Some(1_795_367_100);
        let firmware = case.host.firmware.clone();
        let pi = firmware.raspberry_pi.and_then(|board| board.boot);
        let board = firmware
            .u_boot
            .and_then(|board| board.u_env.or(board.extlinux));
        let old = board.or_else(|| pi?.texts.remove("config.txt"));
        let plan = case.plan();
        let writes = plan.work.steps.iter().filter_map(|step| match step {
            Step::WriteFile { path, .. } => Some(path.as_str()),
            _ => None,
        });
        let writes: Vec<&str> = writes.collect();
        let backup = format!("{path}.20261122-17-05-00");
        assert!(
            writes.ends_with(&[backup.as_str(), path]),
            "{host}: {writes:?}"
        );
        assert_eq!(written(&plan, &backup), old, "{host}");
        let restore = &handover(&plan).restore;
        let [file, beside, ..] = restore.as_slice() else {
            panic!("{host}: {restore:?}");
        };
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        assert_eq!(
            (name(&file.path), name(&beside.path)),
            (name(path), name(&backup))
        );
        assert!(file.old.is_some() && beside.old.is_none(), "{host}");
    }
}

//! The files that go into the new system.

use super::summary::NewFile;
use crate::check::Subject;
use crate::handover::Target;
use crate::secret::Secret;

/// A file that goes into the new system, with its content.
pub struct NewContent {
    /// Of the new system.
    pub partition: Target,
    /// Its path there, with a leading `/`.
    pub path: String,
    /// Where it comes from, for people.
    pub from: String,
    /// Its content.
    pub content: Secret,
}

impl NewContent {
    /// For the plan.
    pub fn summary(&self) -> NewFile {
        NewFile {
            place: format!("{}:{}", label(self.partition), self.path),
            from: self.from.clone(),
        }
    }
}

/// config.json, the network files, and those of GRUB.
pub fn of(subject: &Subject) -> Vec<NewContent> {
    let config_json = subject.material.config_json.iter().map(|json| NewContent {
        partition: Target::Boot,
        path: "/config.json".to_owned(),
        from: match &subject.material.kept_name {
            Some(name) => format!("{}, with the host name {name}", json.file),
            None => json.file.clone(),
        },
        content: json.bytes.clone(),
    });
    let keyfiles = subject.material.keyfiles.iter().map(|keyfile| NewContent {
        partition: Target::Boot,
        path: format!("/system-connections/{}", keyfile.name),
        from: format!("{}, {}", keyfile.what, keyfile.place),
        content: keyfile.bytes.clone(),
    });
    let copied = subject.material.copied.iter().map(|copied| NewContent {
        partition: Target::Boot,
        path: format!("/system-connections/{}", copied.name),
        from: copied.path.clone(),
        content: copied.bytes.clone(),
    });
    let new_grub = subject.material.made_grub().into_iter();
    let grub_files = new_grub
        .flat_map(|grub| &grub.files)
        .map(|file| NewContent {
            partition: Target::Boot,
            path: file.path.clone(),
            from: file.from.clone(),
            content: Secret::new(file.bytes.clone()),
        });
    config_json
        .chain(keyfiles)
        .chain(copied)
        .chain(grub_files)
        .collect()
}

fn label(target: Target) -> &'static str {
    match target {
        Target::Boot => "resin-boot",
        Target::Data => "resin-data",
    }
}

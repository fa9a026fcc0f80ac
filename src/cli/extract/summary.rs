//! What `extract` did, in a few lines.

use crate::extract::list::size;
use crate::extract::take::Taken;
use crate::extract::wanted::{Target, Wanted};
use crate::extract::write::Written;
use crate::shown::shown;

/// The lines; `image` is the file as the user named it.
pub fn text(image: &str, wanted: &Wanted, taken: &Taken) -> String {
    let mut rows = Vec::new();
    rows.push(("system", system(taken)));
    if let Some(written) = &taken.image {
        rows.extend(os_image(image, taken, written));
    }
    for output in &taken.outputs {
        rows.push(match &output.target {
            Target::File(path) => ("wrote", path.clone()),
            Target::Stdout => ("wrote", "standard output".to_owned()),
        });
    }
    let carried = taken.found.carried.as_ref();
    let is_signed = carried.is_some_and(|inner| inner.carried.signature.is_some());
    if wanted.img == Some(Target::Stdout) && is_signed {
        rows.push(("", "not its signature: give --img a name for that".into()));
    }
    if let Some(config) = &wanted.config {
        rows.push(("set in", config.clone()));
        rows.extend(settings(taken));
    }
    rows.extend(taken.remarks.iter().map(|remark| ("", remark.clone())));
    let lines = rows
        .into_iter()
        .map(|(name, value)| format!("{name:<11} {value}\n"));
    lines.collect()
}

fn system(taken: &Taken) -> String {
    let files = taken.found.os().1.map(|boot| &boot.files);
    let os = files.and_then(|files| files.os_release.get("PRETTY_NAME"));
    let slug = files.and_then(|files| files.slug());
    format!(
        "{} for {}",
        os.map_or("balenaOS", String::as_str),
        slug.unwrap_or("an unknown device type")
    )
}

fn os_image(image: &str, taken: &Taken, written: &Written) -> [(&'static str, String); 3] {
    let what = match &taken.found.carried {
        Some(inner) => format!("{} of {}", shown(&inner.carried.path), inner.carried.place),
        None => format!("{image} is no flasher image but the OS image itself: packed anew"),
    };
    let sizes = format!(
        "{} unpacked, {} written",
        size(written.image_bytes),
        size(written.file_bytes)
    );
    [
        ("OS image", what),
        ("", sizes),
        ("SHA-256", format!("{} (unpacked)", written.image_sha256)),
    ]
}

fn settings(taken: &Taken) -> Vec<(&'static str, String)> {
    let mut rows: Vec<_> = taken
        .keys
        .iter()
        .map(|(name, value)| ("", format!("{name}={value}")))
        .collect();
    let is_set = |name: &str| taken.keys.iter().any(|(known, _)| *known == name);
    if is_set("NO_FLASH") {
        let remark = "NO_FLASH=TRUE rehearses; remove it when that went well";
        rows.push(("", remark.to_owned()));
    }
    let is_json = |name: Option<&str>| name == Some("BALENA_CONFIG");
    let has_json = taken.outputs.iter().any(|output| is_json(output.setting));
    if is_set("BALENA_CONFIG") && !has_json {
        let remark = "the image has no config.json: put yours beside it";
        rows.push(("", remark.to_owned()));
    }
    rows
}

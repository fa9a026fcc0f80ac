//! One parser under libFuzzer: the one that has the target's name.
#![no_main]

mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = env!("CARGO_BIN_NAME");
    let (_, parse) = parsers::PARSERS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("every target has a parser");
    parse(bytes);
});

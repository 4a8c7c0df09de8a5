//! The examples of `docs/formats/`, so that a test can hold them.

use std::path::{Path, PathBuf};

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(path)
}

/// The bytes of each block of code below `## Example` of a page, in order: hexadecimal digits up
/// to two spaces, behind which a line says what they are.
pub fn examples(page: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(repository(page)).unwrap();
    let (_, example) = text.split_once("\n## Example\n").expect("the page has an example");
    example.split("```\n").skip(1).step_by(2).map(bytes).collect()
}

fn bytes(block: &str) -> Vec<u8> {
    let line = |line: &str| line.trim_start().split("  ").next().unwrap_or("").replace(' ', "");
    let digits: String = block.lines().map(line).collect();
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(pair).collect()
}

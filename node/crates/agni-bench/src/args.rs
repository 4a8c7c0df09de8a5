//! `--name value` arguments, without a dependency.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The arguments of a tool.
pub struct Args {
    values: BTreeMap<String, String>,
}

impl Args {
    /// Reads the arguments of this process.
    ///
    /// # Errors
    /// Says which argument has no name or no value.
    pub fn of_process() -> Result<Args, String> {
        let mut values = BTreeMap::new();
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            let Some(name) = name.strip_prefix("--") else {
                return Err(format!("unexpected argument {name}: write --name value"));
            };
            let value = rest.next().ok_or_else(|| format!("--{name} needs a value"))?;
            values.insert(name.to_owned(), value);
        }
        Ok(Args { values })
    }

    /// An argument that must be there.
    ///
    /// # Errors
    /// Says that it is missing or isn't of its type.
    pub fn need<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.values.get(name).ok_or_else(|| format!("--{name} is missing"))?;
        text.parse().map_err(|_| format!("--{name} can't be {text}"))
    }

    /// An argument with a default.
    ///
    /// # Errors
    /// Says that it isn't of its type.
    pub fn or<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.values.get(name) {
            Some(text) => text.parse().map_err(|_| format!("--{name} can't be {text}")),
            None => Ok(default),
        }
    }
}

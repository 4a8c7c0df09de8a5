//! Query strings, taken apart strictly: an unknown name is refused, not ignored.

use crate::http::words::kind_of_word;
use crate::status::RpcError;
use agni_core::proto::api;
use percent_encoding::percent_decode_str;

/// The names and values of a query string, in their order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// Decodes one part of a path or a query.
pub fn decode(field: &str, text: &str) -> Result<String, RpcError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| RpcError::field(field, "is not UTF-8"))
}

impl Query {
    /// Takes a query string apart.
    pub fn parse(text: &str) -> Result<Query, RpcError> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode("query", &name.replace('+', " "))?;
            let value = decode(&name, &value.replace('+', " "))?;
            Ok((name, value))
        });
        pairs.collect::<Result<Vec<_>, RpcError>>().map(Query)
    }

    /// All values of a name.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(n, _)| n == name);
        self.0 = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a name that may be given once.
    pub fn one(&mut self, name: &str) -> Result<Option<String>, RpcError> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(RpcError::field(name, "is given more than once")),
        }
    }

    /// Text, or nothing.
    pub fn text(&mut self, name: &str) -> Result<String, RpcError> {
        Ok(self.one(name)?.unwrap_or_default())
    }

    /// A number that may be left out.
    pub fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, RpcError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e'));
        match text.parse() {
            Ok(number) if plain && !text.is_empty() => Ok(Some(number)),
            _ => Err(RpcError::field(name, format!("is {text:?}, which is no number in range"))),
        }
    }

    /// true or false; false where it is left out.
    pub fn flag(&mut self, name: &str) -> Result<bool, RpcError> {
        match self.one(name)?.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            _ => Err(RpcError::field(name, "must be true or false")),
        }
    }

    /// Refuses what nobody has asked for.
    pub fn end(self) -> Result<(), RpcError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(RpcError::field(name.clone(), "is no parameter of this request"))
            }
        }
    }

    fn capacity(&mut self, prefix: &str) -> Result<Option<api::Capacity>, RpcError> {
        let mut amount = |name| self.number::<f64>(&format!("{prefix}{name}"));
        let parts = [amount("cpu")?, amount("bandwidth")?, amount("memory")?, amount("storage")?];
        if parts.iter().all(Option::is_none) {
            return Ok(None);
        }
        let [cpu, bandwidth, memory, storage] = parts.map(Option::unwrap_or_default);
        Ok(Some(api::Capacity { cpu, bandwidth, memory, storage }))
    }

    /// A filter; `region` is the name under which regions are demanded.
    pub fn filter(&mut self, kind: i32, region: &str) -> Result<api::Filter, RpcError> {
        let mut filter = api::Filter {
            kind,
            namespace: self.text("namespace")?,
            regions: self.all(region),
            min_capacity: self.capacity("min_")?,
            min_free: self.capacity("min_free_")?,
            name_prefix: self.text("name_prefix")?,
            gateway: self.text("gateway")?,
            ..api::Filter::default()
        };
        for label in self.all("label") {
            let (key, value) = label.split_once('=').unwrap_or((&label, ""));
            if filter.labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(RpcError::field("label", format!("names {key:?} more than once")));
            }
        }
        for status in self.all("status") {
            filter.statuses.push(match &*status {
                "alive" => api::Status::Alive,
                "suspect" => api::Status::Suspect,
                "draining" => api::Status::Draining,
                _ => return Err(RpcError::field("status", "must be alive, suspect or draining")),
            } as i32);
        }
        Ok(filter)
    }

    /// A kind that may be left out.
    pub fn kind(&mut self) -> Result<i32, RpcError> {
        Ok(match self.one("kind")?.as_deref() {
            None => 0,
            Some(word) => kind_of_word("kind", word)? as i32,
        })
    }

    /// How fresh.
    pub fn read(&mut self) -> Result<Option<api::ReadOptions>, RpcError> {
        let consistency = match self.one("consistency")?.as_deref() {
            None => api::Consistency::Unspecified,
            Some("linearizable") => api::Consistency::Linearizable,
            Some("leader") => api::Consistency::Leader,
            Some("stale") => api::Consistency::Stale,
            _ => {
                let message = "must be linearizable, leader or stale";
                return Err(RpcError::field("consistency", message));
            }
        } as i32;
        let max_staleness_ms = self.number("max_staleness_ms")?.unwrap_or_default();
        // What a client has seen is for clients that keep it: over HTTP there is no such one.
        Ok(Some(api::ReadOptions { consistency, max_staleness_ms, ..api::ReadOptions::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(result: Result<impl Sized, RpcError>) -> Option<String> {
        result.err().and_then(|error| error.metadata.get("field").cloned())
    }

    #[test]
    fn a_filter_is_read_from_its_parameters() {
        let mut query = Query::parse(
            "region=eu&region=us&label=a%3Db&label=c&min_cpu=2&status=alive&name_prefix=x+y",
        )
        .expect("query");
        let filter = query.filter(1, "region").expect("filter");
        assert_eq!(filter.regions, ["eu", "us"]);
        assert_eq!(filter.labels["a"], "b");
        assert_eq!(filter.labels["c"], "");
        assert_eq!(filter.min_capacity.map(|c| c.cpu), Some(2.0));
        assert_eq!(filter.name_prefix, "x y");
        assert!(query.end().is_ok());
    }

    #[test]
    fn each_refusal_names_its_parameter() {
        let parse = |text: &str| Query::parse(text).expect("query");
        assert_eq!(field(parse("nonsense=1").end()).as_deref(), Some("nonsense"));
        assert_eq!(field(parse("min_cpu=x").filter(0, "region")).as_deref(), Some("min_cpu"));
        assert_eq!(field(parse("min_cpu=NaN").filter(0, "region")).as_deref(), Some("min_cpu"));
        assert_eq!(field(parse("status=dead").filter(0, "region")).as_deref(), Some("status"));
        assert_eq!(field(parse("kind=cow").kind()).as_deref(), Some("kind"));
        assert_eq!(field(parse("a=1&a=2").one("a")).as_deref(), Some("a"));
        assert_eq!(field(Query::parse("a=%ff")).as_deref(), Some("a"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(
            text in "\\PC{0,60}",
            known in "(kind|region|label|min_cpu|status|consistency)=[%&=0-9a-z.]*",
        ) {
            for text in [text.clone(), known.clone(), format!("{known}&{text}")] {
                let Ok(mut query) = Query::parse(&text) else { continue };
                let _ = (query.kind(), query.read(), query.filter(0, "region"), query.end());
            }
        }
    }
}

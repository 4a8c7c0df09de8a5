//! What a record can lose together with others: its region, and the gateway it is behind.

use hashbrown::Equivalent;
use std::fmt;

/// A domain of failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// Everything of one region.
    Region(Box<str>),
    /// Everything of one namespace that names the same gateway: its uplink.
    Gateway {
        /// The namespace.
        namespace: Box<str>,
        /// The gateway, as the records' specs name it.
        name: Box<str>,
    },
}

/// The same, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DomainRef<'a> {
    Region(&'a str),
    Gateway { namespace: &'a str, name: &'a str },
}

impl DomainRef<'_> {
    pub(crate) fn to_owned(self) -> Domain {
        match self {
            DomainRef::Region(name) => Domain::Region(name.into()),
            DomainRef::Gateway { namespace, name } => {
                Domain::Gateway { namespace: namespace.into(), name: name.into() }
            }
        }
    }
}

impl Domain {
    pub(crate) fn as_ref(&self) -> DomainRef<'_> {
        match self {
            Domain::Region(name) => DomainRef::Region(name),
            Domain::Gateway { namespace, name } => DomainRef::Gateway { namespace, name },
        }
    }
}

impl Equivalent<Domain> for DomainRef<'_> {
    fn equivalent(&self, domain: &Domain) -> bool {
        *self == domain.as_ref()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Region(name) => write!(formatter, "region {name}"),
            Domain::Gateway { namespace, name } => {
                write!(formatter, "gateway {namespace}/{name} and what is behind it")
            }
        }
    }
}

/// Where a record is.
#[derive(Clone, Copy)]
pub(crate) struct Home<'a> {
    pub region: &'a str,
    pub namespace: &'a str,
    /// Empty where it is behind none.
    pub gateway: &'a str,
}

impl<'a> Home<'a> {
    pub(crate) fn region(&self) -> DomainRef<'a> {
        DomainRef::Region(self.region)
    }

    pub(crate) fn gateway(&self) -> Option<DomainRef<'a>> {
        let gateway = DomainRef::Gateway { namespace: self.namespace, name: self.gateway };
        (!self.gateway.is_empty()).then_some(gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashbrown::HashMap;

    #[test]
    fn a_borrowed_domain_finds_the_owned_one() {
        let domains = [
            DomainRef::Region("eu"),
            DomainRef::Gateway { namespace: "default", name: "eu" },
            DomainRef::Gateway { namespace: "eu", name: "default" },
        ];
        let known: HashMap<Domain, usize> =
            domains.into_iter().enumerate().map(|(id, domain)| (domain.to_owned(), id)).collect();
        for (id, domain) in domains.iter().enumerate() {
            assert_eq!(known.get(domain), Some(&id));
        }
    }
}

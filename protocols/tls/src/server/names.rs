//! Which certificate belongs to which name.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    client::verify_server_name, pki_types::ServerName, server::ParsedCertificate,
    sign::CertifiedKey,
};

use crate::ConfigError;

/// A name that a certificate is given for: of one host, or `*.` and a domain, which stands for
/// each host directly below it (RFC 9525 section 6.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Host(String),
    Below(String),
}

impl Name {
    pub(super) fn parse(name: &str) -> Result<Self, ConfigError> {
        let lower = name.to_ascii_lowercase();
        let (host, is_wildcard) = match lower.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (&*lower, false),
        };
        match ServerName::try_from(host) {
            Ok(ServerName::DnsName(_)) if is_wildcard => Ok(Self::Below(host.to_owned())),
            Ok(ServerName::DnsName(_)) => Ok(Self::Host(lower)),
            Ok(_) => Err(ConfigError::ServerName {
                name: name.to_owned(),
                problem: "clients name no addresses (RFC 6066 section 3)",
            }),
            Err(_) => Err(ConfigError::ServerName {
                name: name.to_owned(),
                problem: "a host name, or \"*.\" and a domain, is wanted",
            }),
        }
    }

    /// A host that it stands for, and the name as it was given.
    fn example(&self) -> (String, String) {
        match self {
            Self::Host(host) => (host.clone(), host.clone()),
            Self::Below(domain) => (format!("a.{domain}"), format!("*.{domain}")),
        }
    }

    /// Refuse a certificate that clients of this name would refuse.
    pub(super) fn check(&self, key: &CertifiedKey, place: &str) -> Result<(), ConfigError> {
        let (host, name) = self.example();
        let wrong = |source: Box<dyn std::error::Error + Send + Sync>| ConfigError::WrongName {
            place: place.to_owned(),
            name,
            source,
        };
        let certificate = match key.end_entity_cert().and_then(ParsedCertificate::try_from) {
            Ok(certificate) => certificate,
            Err(error) => return Err(wrong(error.into())),
        };
        let host = ServerName::try_from(host).expect("a label before a domain is a host name");
        verify_server_name(&certificate, &host).map_err(|error| wrong(error.into()))
    }
}

/// The certificates that are in use.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) default: Option<Arc<CertifiedKey>>,
    hosts: HashMap<String, Arc<CertifiedKey>>,
    below: HashMap<String, Arc<CertifiedKey>>,
}

impl Table {
    pub(super) fn insert(&mut self, name: &Name, key: &Arc<CertifiedKey>) {
        let (map, name) = match name {
            Name::Host(host) => (&mut self.hosts, host),
            Name::Below(domain) => (&mut self.below, domain),
        };
        map.insert(name.clone(), key.clone());
    }

    /// The certificate for what a client asks for, in lower case: that of the name, of the domain
    /// above it, or of everybody else.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let of_name = name.and_then(|name| {
            let of_domain = || self.below.get(name.split_once('.')?.1);
            self.hosts.get(name).or_else(of_domain)
        });
        of_name.or(self.default.as_ref())
    }
}

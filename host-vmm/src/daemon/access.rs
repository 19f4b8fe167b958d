//! Who may open sessions, and how many.
//!
//! On a unix socket the file's mode decides. On a vsock port any virtual machine of this host can call, so that nobody is served who was not allowed by
//! context id, for which the host's kernel vouches.

use std::fmt;
use std::str::FromStr;

use transport::Peer;

use crate::cli::size;
use crate::config::Limits;

/// Whose a session is: its lanes must come from the same place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// A process of this machine.
    Local,
    /// Whoever is behind the listener of this number, a unix socket that stands for a virtual machine's port.
    Endpoint(usize),
    /// The virtual machine with this context id.
    Machine(u32),
}

impl Owner {
    /// Of a connection that was accepted by a listener.
    pub fn of(peer: &Peer, listener: usize, passes_descriptors: bool) -> Self {
        match peer {
            Peer::Machine { cid, .. } => Self::Machine(*cid),
            Peer::Process(_) if passes_descriptors => Self::Local,
            Peer::Process(_) => Self::Endpoint(listener),
        }
    }
}

/// A machine that may open sessions, or any: `3`, `any`, `3:sessions=2,memory=4G`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// None: any that no other entry names.
    cid: Option<u32>,
    sessions: Option<u32>,
    lanes: Option<u32>,
    handles: Option<u32>,
    memory: Option<u64>,
    window: Option<u64>,
    image: Option<u64>,
    images: Option<u64>,
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (who, limits) = text.split_once(':').unwrap_or((text, ""));
        let cid = match who {
            "any" => None,
            number => Some(number.parse().map_err(|_| format!("'{who}' is neither a context id nor 'any'"))?),
        };
        let mut allowed = Self { cid, ..Self::default() };
        for limit in limits.split(',').filter(|limit| !limit.is_empty()) {
            let (name, value) =
                limit.split_once('=').ok_or_else(|| format!("'{limit}' is not of the form NAME=VALUE"))?;
            let count = || value.parse().map(Some).map_err(|_| format!("'{value}' is no number"));
            let bytes = || size::parse(value).map(Some);
            match name {
                "sessions" => allowed.sessions = count()?,
                "lanes" => allowed.lanes = count()?,
                "handles" => allowed.handles = count()?,
                "memory" => allowed.memory = bytes()?,
                "window" => allowed.window = bytes()?,
                "image" => allowed.image = bytes()?,
                "images" => allowed.images = bytes()?,
                _ => {
                    return Err(format!(
                        "'{name}' is no limit; those are sessions, lanes, handles, memory, window, image, images"
                    ));
                }
            }
        }
        Ok(allowed)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cid {
            Some(cid) => write!(f, "cid {cid}"),
            None => f.write_str("any cid"),
        }
    }
}

/// The machines that may open sessions.
#[derive(Clone, Debug, Default)]
pub struct Access {
    allowed: Vec<Allowed>,
}

impl Access {
    /// `machines` may open sessions even if `allowed` does not name them.
    ///
    /// # Errors
    /// Limits with which no session could work, or a machine named twice.
    pub fn new(
        mut allowed: Vec<Allowed>,
        machines: impl IntoIterator<Item = u32>,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        for (index, entry) in allowed.iter().enumerate() {
            anyhow::ensure!(
                !allowed[..index].iter().any(|other| other.cid == entry.cid),
                "{entry} is allowed twice"
            );
            entry.apply(limits).check().map_err(|error| error.context(format!("limits of {entry}")))?;
        }
        for cid in machines {
            if !allowed.iter().any(|entry| entry.cid.is_none_or(|other| other == cid)) {
                allowed.push(Allowed { cid: Some(cid), ..Allowed::default() });
            }
        }
        Ok(Self { allowed })
    }

    /// The limits of an owner's sessions, given those of everybody; None if it may have none.
    pub fn limits(&self, owner: Owner, limits: &Limits) -> Option<Limits> {
        let Owner::Machine(cid) = owner else { return Some(limits.clone()) };
        let named = self.allowed.iter().find(|entry| entry.cid == Some(cid));
        let entry = named.or_else(|| self.allowed.iter().find(|entry| entry.cid.is_none()))?;
        Some(entry.apply(limits))
    }
}

impl Allowed {
    fn apply(&self, limits: &Limits) -> Limits {
        Limits {
            sessions: self.sessions.map_or(limits.sessions, |sessions| sessions.min(limits.sessions)),
            lanes: self.lanes.unwrap_or(limits.lanes),
            handles: self.handles.unwrap_or(limits.handles),
            memory_bytes: self.memory.unwrap_or(limits.memory_bytes),
            window_bytes: self.window.unwrap_or(limits.window_bytes),
            image_bytes: self.image.unwrap_or(limits.image_bytes),
            images_bytes: self.images.unwrap_or(limits.images_bytes),
            ..limits.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(texts: &[&str]) -> anyhow::Result<Access> {
        let allowed = texts.iter().map(|text| text.parse().map_err(anyhow::Error::msg));
        Access::new(allowed.collect::<anyhow::Result<_>>()?, [7], &Limits::default())
    }

    #[test]
    fn nobody_is_allowed_who_is_not_named() {
        let limits = Limits::default();
        let none = access(&[]).unwrap();
        assert_eq!(none.limits(Owner::Local, &limits), Some(limits.clone()));
        assert_eq!(none.limits(Owner::Endpoint(1), &limits), Some(limits.clone()));
        assert_eq!(none.limits(Owner::Machine(3), &limits), None);
        assert_eq!(none.limits(Owner::Machine(7), &limits), Some(limits.clone()));
        let one = access(&["3:sessions=2,memory=1G"]).unwrap();
        let own = one.limits(Owner::Machine(3), &limits).unwrap();
        assert_eq!((own.sessions, own.memory_bytes, own.lanes), (2, 1 << 30, limits.lanes));
        assert_eq!(one.limits(Owner::Machine(4), &limits), None);
        let any = access(&["any:lanes=7", "3:lanes=9"]).unwrap();
        assert_eq!(any.limits(Owner::Machine(3), &limits).unwrap().lanes, 9);
        assert_eq!(any.limits(Owner::Machine(5), &limits).unwrap().lanes, 7);
        assert_eq!(any.limits(Owner::Machine(7), &limits).unwrap().lanes, 7);
    }

    #[test]
    fn errors() {
        for bad in ["", "x", "-1", "3:sessions", "3:sessions=x", "3:memory=big", "3:speed=1", ":sessions=1"] {
            assert!(bad.parse::<Allowed>().is_err(), "{bad}");
        }
        assert!(access(&["3", "3"]).is_err());
        assert!(access(&["3:memory=1"]).is_err());
        assert!(access(&["3:lanes=0"]).is_err());
    }
}

//! Addresses and names of the links between cells and the host.
//!
//! Links use 198.18.0.0/15, which is reserved for such test set-ups and routed nowhere (RFC 2544). Each daemon takes a /20 of it that no interface of the
//! host uses yet, so that several daemons share a host: 2,048 links of two addresses.

use std::net::Ipv4Addr;

const RANGE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const SLICE_BITS: u32 = 12;
pub(super) const SLICES: u32 = 1 << (17 - SLICE_BITS);
pub(super) const LINKS: u32 = 1 << (SLICE_BITS - 1);

/// Above what distributions and `subuid` hand out, below the 31 bits that all tools can handle.
const FIRST_USER: u32 = 0x7000_0000;

/// The addresses of one daemon's cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub number: u32,
    /// `eb` and two digits: the prefix of the daemon's interface names.
    pub prefix: String,
}

/// One link: the two ends of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub number: u32,
    pub interface: String,
    pub host: Ipv4Addr,
    pub cell: Ipv4Addr,
}

impl Slice {
    pub(super) fn at(number: u32) -> Self {
        let number = number % SLICES;
        Self { number, prefix: format!("eb{number:02}") }
    }

    /// Users of this daemon's machines have numbers from here on.
    pub(super) fn first_user(&self) -> u32 {
        FIRST_USER + self.number * LINKS
    }

    pub(super) fn is_user(&self, uid: u32) -> bool {
        (self.first_user()..self.first_user() + LINKS).contains(&uid)
    }

    fn base(&self) -> u32 {
        RANGE + (self.number << SLICE_BITS)
    }

    pub(super) fn holds_any(&self, addresses: &[Ipv4Addr]) -> bool {
        addresses.iter().any(|address| u32::from(*address) >> SLICE_BITS == self.base() >> SLICE_BITS)
    }

    pub(super) fn cidr(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.base()), 32 - SLICE_BITS)
    }

    pub(super) fn link(&self, number: u32) -> Link {
        let number = number % LINKS;
        let host = self.base() + number * 2;
        Link { number, interface: format!("{}-{number}", self.prefix), host: host.into(), cell: (host + 1).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_knows_its_own_addresses() {
        let (first, second) = (Slice::at(0), Slice::at(1));
        assert_eq!((first.cidr(), second.cidr()), ("198.18.0.0/20".into(), "198.18.16.0/20".into()));
        assert!(first.holds_any(&[first.link(3).host]) && !second.holds_any(&[first.link(3).host]));
        assert_eq!(Slice::at(SLICES), first);
    }

    #[test]
    fn links_do_not_overlap_and_names_fit() {
        let slice = Slice::at(31);
        let (a, b) = (slice.link(LINKS - 1), slice.link(LINKS - 2));
        assert_eq!(u32::from(a.host), u32::from(b.cell) + 1);
        assert!(a.interface.len() < 16, "{}", a.interface);
        assert_eq!(a.cell, Ipv4Addr::new(198, 19, 255, 255));
    }
}

//! Memory that a table lies in.

use memmap2::{MmapMut, MmapOptions};

use crate::Error;

/// Zeroed memory straight from the system: it begins on a page, is filled as it is first touched,
/// and lies on huge pages where the system has them, since rows are visited at random and a
/// table of ordinary pages costs a page walk for nearly each.
#[derive(Debug)]
pub(crate) struct Pages {
    map: MmapMut,
    len: usize,
}

impl Pages {
    pub(crate) fn zeroed(table: &str, len: usize) -> Result<Self, Error> {
        Self::mapped(table, len, &MmapOptions::new())
    }

    /// As [`zeroed`](Self::zeroed), more than the machine may have: only what is touched is taken.
    pub(crate) fn reserved(table: &str, len: usize) -> Result<Self, Error> {
        Self::mapped(table, len, MmapOptions::new().no_reserve_swap())
    }

    fn mapped(table: &str, len: usize, options: &MmapOptions) -> Result<Self, Error> {
        // The system maps nothing of length zero.
        let map = options.clone().len(len.max(1)).map_anon();
        let map = map.map_err(|source| Error::NoMemory {
            table: table.to_owned(),
            bytes: len,
            source,
        })?;
        // A wish: a system without huge pages serves as well.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}

//! Memory that a table lies in.

use std::ops::Range;

use memmap2::{MmapMut, MmapOptions};

use crate::Error;
use crate::mapped::MappedFile;

/// What holds the rows of a table.
#[derive(Debug)]
pub(crate) enum Pages {
    /// Zeroed memory straight from the system: it begins on a page, is filled as it is first touched,
    /// and lies on huge pages where the system has them, since rows are visited at random and a
    /// table of ordinary pages costs a page walk for nearly each.
    Memory { map: MmapMut, len: usize },
    /// A file, whose pages come and go.
    Mapped(MappedFile),
}

impl Pages {
    pub(crate) fn zeroed(table: &str, len: usize) -> Result<Self, Error> {
        Self::anonymous(table, len, &MmapOptions::new())
    }

    /// As [`zeroed`](Self::zeroed), more than the machine may have: only what is touched is taken.
    pub(crate) fn reserved(table: &str, len: usize) -> Result<Self, Error> {
        Self::anonymous(table, len, MmapOptions::new().no_reserve_swap())
    }

    fn anonymous(table: &str, len: usize, options: &MmapOptions) -> Result<Self, Error> {
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
        Ok(Self::Memory { map, len })
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory { map, len } => &map[..*len],
            Self::Mapped(file) => file.bytes(),
        }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Memory { map, len } => &mut map[..*len],
            Self::Mapped(file) => file.bytes_mut(),
        }
    }

    /// Bytes that are about to be changed.
    #[inline]
    pub(crate) fn change(&mut self, range: Range<usize>) -> &mut [u8] {
        match self {
            Self::Memory { map, .. } => &mut map[range],
            Self::Mapped(file) => file.change(range),
        }
    }

    /// Notes that rows are about to be changed by kernels.
    pub(crate) fn change_rows(&mut self, stride: usize, rows: impl Iterator<Item = u32>) {
        if let Self::Mapped(file) = self {
            file.change_rows(stride, rows);
        }
    }

    /// Gives back what lies between two positions of a file, after a walk over all of it.
    pub(crate) fn give_back(&self, from: usize, to: usize) {
        if let Self::Mapped(file) = self {
            file.give_back(from, to);
        }
    }

    pub(crate) fn mapped(&self) -> Option<&MappedFile> {
        match self {
            Self::Memory { .. } => None,
            Self::Mapped(file) => Some(file),
        }
    }
}

//! Arrays of a data set, in memory or in a mapped file.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::Mmap;

/// A shared array that is owned, or lies in a mapped file. Cloning one copies nothing.
#[derive(Clone)]
pub(crate) enum Slice<T> {
    Owned(Arc<Vec<T>>),
    Mapped {
        map: Arc<Mmap>,
        bytes: Range<usize>,
        kind: PhantomData<T>,
    },
}

impl<T: Pod> Slice<T> {
    /// The array at `bytes` of `map`; `None` if it does not lie there whole and aligned.
    pub(crate) fn mapped(map: &Arc<Mmap>, bytes: Range<usize>) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, T>(map.get(bytes.clone())?).ok()?;
        Some(Self::Mapped {
            map: map.clone(),
            bytes,
            kind: PhantomData,
        })
    }

    /// Lets go of the memory that these values of a mapped file take: they are read again when they
    /// are asked for. Nothing of an array that is owned.
    pub(crate) fn give_back(&self, values: Range<usize>) {
        let Self::Mapped { map, bytes, .. } = self else {
            return;
        };
        let start = bytes.start + values.start * size_of::<T>();
        let end = (bytes.start + values.end * size_of::<T>()).min(bytes.end);
        if start >= end {
            return;
        }
        #[cfg(unix)]
        {
            // SAFETY: the map is of a file, shared and read-only: nothing was written through it
            // that could be lost, and pages that are dropped come back from the file with the same
            // bytes, also under slices that are borrowed meanwhile.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
            // Advice that is not taken changes no value.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = map;
    }

    /// The values, a few MB and a multiple of `width` at a time; those of a mapped file do not stay
    /// in memory.
    pub(crate) fn scan(&self, width: usize, mut see: impl FnMut(&[T])) {
        const SOME: usize = 8 << 20;
        let some = (SOME / size_of::<T>() / width).max(1) * width;
        let mut start = 0;
        for values in self.chunks(some) {
            see(values);
            if self.len() > some {
                self.give_back(start..start + values.len());
            }
            start += values.len();
        }
    }
}

impl<T> From<Vec<T>> for Slice<T> {
    fn from(values: Vec<T>) -> Self {
        Self::Owned(Arc::new(values))
    }
}

impl<T: Pod> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Mapped { map, bytes, .. } => bytemuck::cast_slice(&map[bytes.clone()]),
        }
    }
}

impl<T: Pod + PartialEq> PartialEq for Slice<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Slice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

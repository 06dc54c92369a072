//! Where an object and the nodes inside it stand in a file. Says nothing of what they are.

use std::fmt;
use std::sync::Arc;

use crate::diagnostics::Location;

/// Where an object and the nodes inside it stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Path of the file as given by the user.
    pub file: Arc<str>,
    /// Lines of the file before the document the object is in; positions count from there, so that
    /// an object whose neighbour grew keeps its positions.
    pub lines_before: u32,
    positions: Positions,
}

/// Where the parts of an object stand.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Positions {
    /// Only where it begins: line and column. Pods and EndpointSlices have no more, and are many.
    Start(u32, u32),
    /// Sorted by the hash of the path. Hashes instead of paths, because the paths would take more
    /// memory than the object; two paths of one object with the same 32 bits would show a wrong
    /// line and nothing worse.
    Parts(Arc<[Position]>),
}

impl Default for Positions {
    fn default() -> Self {
        Self::Parts(Arc::default())
    }
}

impl Positions {
    /// Line and column of a path.
    fn find(&self, path: &str) -> Option<(u32, u32)> {
        match self {
            Self::Start(line, column) => path.is_empty().then_some((*line, *column)),
            Self::Parts(parts) => {
                let hash = PathHasher::of(path);
                let found = parts.binary_search_by_key(&hash, |p| p.path).ok()?;
                parts.get(found).map(|p| (p.line, p.column))
            }
        }
    }
}

/// Line and column of one path, from 1, in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    path: u32,
    line: u32,
    column: u32,
}

impl Place {
    /// A place from the hashed paths (see [`PathHasher`]) inside the object with their lines and
    /// columns. The empty path is the object itself. Kinds whose resolution never complains about
    /// a part of them have only that one.
    pub fn new(
        file: Arc<str>,
        lines_before: u32,
        positions: impl IntoIterator<Item = (u32, (u32, u32))>,
    ) -> Self {
        let mut positions: Vec<Position> = positions
            .into_iter()
            .map(|(path, (line, column))| Position { path, line, column })
            .collect();
        positions.sort_unstable();
        let positions = match positions.as_slice() {
            [start] if start.path == PathHasher::of("") => {
                Positions::Start(start.line, start.column)
            }
            parts => Positions::Parts(parts.into()),
        };
        Self {
            file,
            lines_before,
            positions,
        }
    }

    /// The place of an object of which nothing but its location is known.
    pub fn of(location: &Location) -> Self {
        let position = (PathHasher::of(""), (location.line, location.column));
        Self::new(location.file.clone(), 0, [position])
    }

    /// The location of a path inside the object (`spec.rules[0].from`), or of its nearest ancestor.
    pub fn locate(&self, path: &str) -> Option<Location> {
        let mut path = path;
        loop {
            if let Some((line, column)) = self.positions.find(path) {
                return Some(Location {
                    file: self.file.clone(),
                    line: line.saturating_add(self.lines_before),
                    column,
                });
            }
            if path.is_empty() {
                return None;
            }
            path = path
                .rfind(['.', '['])
                .map_or("", |cut| path.get(..cut).unwrap_or(""));
        }
    }
}

/// Hashes a path that is written into it, in pieces of any size (64-bit FNV-1a,
/// folded to 32).
#[derive(Clone, Copy, Debug)]
pub struct PathHasher(u64);

impl Default for PathHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl PathHasher {
    /// The hash of a whole path.
    pub fn of(path: &str) -> u32 {
        let mut hasher = Self::default();
        hasher.add(path);
        hasher.finish()
    }

    /// The hash of what was written so far.
    pub fn finish(self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }

    fn add(&mut self, piece: &str) {
        for byte in piece.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl fmt::Write for PathHasher {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.add(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_position_is_at_its_nearest_ancestor() {
        let at = |path| (PathHasher::of(path), (path.len() as u32, 1));
        let place = Place::new(
            "f.yaml".into(),
            10,
            ["", "metadata.labels", "spec", "spec.rules[0]"].map(at),
        );
        let line = |path: &str| place.locate(path).map(|l| l.line);
        assert_eq!(line(""), Some(10));
        assert_eq!(line("spec.rules[0].from[3].source"), Some(23));
        assert_eq!(line("spec.rules[1]"), Some(14));
        assert_eq!(line("metadata.labels[istio.io/use-waypoint]"), Some(25));
        assert_eq!(line("status"), Some(10));
        assert_eq!(Place::default().locate("spec"), None);
    }
}

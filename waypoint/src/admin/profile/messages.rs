//! The messages of a profile as pprof reads them (github.com/google/pprof, proto/profile.proto), and what builds
//! one out of stacks. Samples nothing.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use rustc_hash::FxHashMap;

/// A whole profile. Texts are numbers of entries of `string_table`, whose first is empty.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
}

/// What a value of a sample is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack, the innermost first, and its values.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A text that belongs to a sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Label {
    #[prost(int64, tag = "1")]
    pub key: i64,
    #[prost(int64, tag = "2")]
    pub str: i64,
}

/// A place in the program: a function and those that it was inlined into.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// One function of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its name.
    pub function: String,
    /// Its file; empty if it is not known.
    pub file: String,
    /// The line; 0 if it is not known.
    pub line: u32,
}

/// A profile that is being put together; equal texts, functions and places are there once.
#[derive(Debug, Default)]
pub struct Builder {
    profile: Profile,
    texts: FxHashMap<String, i64>,
    functions: FxHashMap<(i64, i64), u64>,
    locations: FxHashMap<Vec<Line>, u64>,
}

impl Builder {
    /// A profile whose samples have values of these types and units.
    pub fn new(values: &[(&str, &str)]) -> Self {
        let mut builder = Self::default();
        builder.text("");
        let types = values.iter().map(|value| builder.value_type(*value));
        builder.profile.sample_type = types.collect();
        builder
    }

    /// How often and when it was sampled.
    pub fn period(&mut self, of: (&str, &str), every: i64, began: SystemTime, took: Duration) {
        self.profile.period_type = Some(self.value_type(of));
        self.profile.period = every;
        let since_1970 = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.profile.time_nanos = i64::try_from(since_1970.as_nanos()).unwrap_or_default();
        self.profile.duration_nanos = i64::try_from(took.as_nanos()).unwrap_or_default();
    }

    /// A remark that is shown with the profile.
    pub fn comment(&mut self, text: &str) {
        let text = self.text(text);
        self.profile.comment.push(text);
    }

    /// Adds a stack, the innermost place first; each place is a function and those it was inlined into.
    pub fn sample(&mut self, stack: &[Vec<Frame>], values: Vec<i64>, labels: &[(&str, &str)]) {
        let location_id = stack.iter().map(|place| self.location(place)).collect();
        let labels = labels.iter().map(|(key, value)| Label {
            key: self.text(key),
            str: self.text(value),
        });
        let sample = Sample {
            location_id,
            value: values,
            label: labels.collect(),
        };
        self.profile.sample.push(sample);
    }

    /// The profile, compressed as pprof expects it.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&self.profile.encode_to_vec())?;
        gzip.finish()
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> ValueType {
        ValueType {
            r#type: self.text(kind),
            unit: self.text(unit),
        }
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let table = &mut self.profile.string_table;
        let number = i64::try_from(table.len()).unwrap_or_default();
        table.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    fn location(&mut self, place: &[Frame]) -> u64 {
        let lines: Vec<Line> = place.iter().map(|frame| self.line(frame)).collect();
        if let Some(known) = self.locations.get(&lines) {
            return *known;
        }
        // 0 means none.
        let id = self.profile.location.len() as u64 + 1;
        let line = lines.clone();
        self.profile.location.push(Location { id, line });
        self.locations.insert(lines, id);
        id
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let (name, filename) = (self.text(&frame.function), self.text(&frame.file));
        let functions = &mut self.profile.function;
        let function_id = *self.functions.entry((name, filename)).or_insert_with(|| {
            let id = functions.len() as u64 + 1;
            functions.push(Function {
                id,
                name,
                system_name: name,
                filename,
            });
            id
        });
        Line {
            function_id,
            line: i64::from(frame.line),
        }
    }
}

/// The functions of a stack, innermost first, and its values.
#[cfg(test)]
type Named = (Vec<String>, Vec<i64>);

/// Reads a profile that [`Builder::finish`] wrote, and names each stack of it with its values.
#[cfg(test)]
pub fn read(compressed: &[u8]) -> (Profile, Vec<Named>) {
    use std::io::Read as _;
    let mut plain = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(compressed);
    gzip.read_to_end(&mut plain).unwrap();
    let profile = Profile::decode(&*plain).unwrap();
    let text = |at: i64| profile.string_table[usize::try_from(at).unwrap()].clone();
    let function = |id: u64| {
        let function = profile.function.iter().find(|f| f.id == id).unwrap();
        text(function.name)
    };
    let named = profile.sample.iter().map(|sample| {
        let places = sample.location_id.iter().flat_map(|id| {
            let place = profile.location.iter().find(|l| l.id == *id).unwrap();
            place.line.iter().map(|line| function(line.function_id))
        });
        (places.collect(), sample.value.clone())
    });
    let named = named.collect();
    (profile, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.into(),
            file: "a.rs".into(),
            line: 7,
        }
    }

    #[test]
    fn stacks_come_back_as_they_went_in_and_share_what_is_equal() {
        let mut builder = Builder::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
        let inlined = vec![frame("inner"), frame("outer")];
        builder.sample(&[inlined.clone(), vec![frame("main")]], vec![2, 20], &[]);
        builder.sample(
            &[vec![frame("main")]],
            vec![1, 10],
            &[("thread", "worker-0")],
        );
        let (profile, stacks) = read(&builder.finish().unwrap());
        assert_eq!(profile.string_table[0], "", "as pprof demands");
        assert_eq!((profile.function.len(), profile.location.len()), (3, 2));
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(stacks[0], (names(&["inner", "outer", "main"]), vec![2, 20]));
        assert_eq!(stacks[1], (names(&["main"]), vec![1, 10]));
        assert_eq!(profile.sample[1].label.len(), 1);
    }
}

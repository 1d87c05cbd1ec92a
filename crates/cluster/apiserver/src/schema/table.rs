//! The table of types in memory: an index of its text, and each type read when it is first asked
//! for, every name a slice of that text. All types together are ten times what one start needs.

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

/// One type: an object with named fields, or any JSON.
#[derive(Debug)]
pub struct Definition {
    /// Published name, such as `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// The kind, for types that are a whole object of one kind.
    pub kind: Option<GroupVersionKind>,
    /// Whether a value may be any JSON. Then there are no fields.
    pub any: bool,
    /// `atomic` if a value has one owner as a whole.
    pub map_type: Option<&'static str>,
    /// Fields by name.
    pub fields: Vec<Field>,
}

/// What an object says of itself in `apiVersion` and `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupVersionKind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version in the group.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
}

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Whether the schema requires it.
    pub required: bool,
    /// What its zero value means.
    pub zero: Zero,
    /// Where it is in the protobuf message.
    pub wire: Wire,
    /// Lists: `atomic`, `set` or `map`.
    pub list_type: Option<&'static str>,
    /// Lists of type `map`: the fields that together identify an item, separated by commas.
    pub list_keys: Option<&'static str>,
    /// Maps and objects: `atomic` or `granular`.
    pub map_type: Option<&'static str>,
    /// Patch strategy has `merge`.
    pub merge: bool,
    /// Patch strategy has `retainKeys`.
    pub retain_keys: bool,
    /// Key by which items of a merged list are the same.
    pub merge_key: Option<&'static str>,
    /// Published value of an absent field.
    pub default: Option<&'static str>,
    /// The original's name for its text, such as `v1.Protocol`, if that is not `string`.
    pub named: Option<&'static str>,
    /// All values its text may have, separated by commas.
    pub choices: Option<&'static str>,
    /// Least and most of its number, of the characters of its text or of its items, for types whose
    /// schema is all that is checked: [`crate::kinds`] knows which.
    pub limits: Limits,
    /// Name of the pattern of its text or of its items' text, for the same types.
    pub pattern: Option<&'static str>,
}

/// The range a number is in, both ends included; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The least.
    pub min: Option<i64>,
    /// The most.
    pub max: Option<i64>,
}

/// What a typed encoder makes of a field that is zero, `false` or the empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// The same as absent: left out.
    Absent,
    /// Something else than absent: both stay as they are (a pointer in Go).
    Distinct,
    /// The same as absent: written.
    Written,
}

/// Where a field is in the protobuf message of its type.
#[derive(Debug, Default)]
pub struct Wire {
    /// Its number, behind those of the messages around it that JSON leaves out. Empty if it is in no
    /// message, as `apiVersion` and `kind` of an object.
    pub numbers: Vec<u32>,
    /// Whether its innermost list is a message of its own, with the items as field 1.
    pub wrapped: bool,
}

/// What a field, item or map value holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// Whole number of 32 bits.
    Int32,
    /// Whole number of 64 bits.
    Int64,
    /// Number.
    Double,
    /// `true` or `false`.
    Bool,
    /// Bytes, base64 in JSON.
    Bytes,
    /// Amount of a resource, canonical as a string.
    Quantity,
    /// Whole number or string.
    IntOrString,
    /// RFC 3339 time to the second.
    Time,
    /// RFC 3339 time to the microsecond.
    MicroTime,
    /// Anything.
    Any,
    /// An object of a type of the table, by position there.
    Object(usize),
    /// A list.
    List(Box<Self>),
    /// A map with string keys.
    Map(Box<Self>),
}

impl Type {
    /// The definition of the object, of the list's items or of the map's values.
    #[must_use]
    pub fn below(&self) -> Option<&'static Definition> {
        match self {
            Self::Object(position) => TABLE.get(*position).map(Paragraph::definition),
            Self::List(below) | Self::Map(below) => below.below(),
            Self::String
            | Self::Int32
            | Self::Int64
            | Self::Double
            | Self::Bool
            | Self::Bytes
            | Self::Quantity
            | Self::IntOrString
            | Self::Time
            | Self::MicroTime
            | Self::Any => None,
        }
    }
}

impl Definition {
    /// The field named `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let position = self.fields.binary_search_by(|it| it.name.cmp(name)).ok()?;
        self.fields.get(position)
    }

    /// Last part of the name, such as `Pod`: also the name of the Go type.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// Those of Kubernetes, and behind them those that no document of Kubernetes has: metrics-server's, from
/// staging/src/k8s.io/metrics (a window is a message in protobuf, which is left out there), and those of
/// the Gateway API 1.6, standard channel, from its custom resource definitions. Before them our own.
pub(crate) static TEXT: &str = concat!(
    include_str!("coracle.txt"),
    "\n",
    include_str!("table.txt"),
    "\n",
    include_str!("metrics.txt"),
    "\n",
    include_str!("gateway.txt")
);
static TABLE: LazyLock<Vec<Paragraph>> = LazyLock::new(|| index(TEXT));
/// Places in the table by group, version and kind.
static OF_KINDS: LazyLock<HashMap<(&str, &str, &str), usize>> = LazyLock::new(|| {
    let kind = |it: &Paragraph| it.head.split(' ').next().and_then(parse_kind);
    let places = TABLE.iter().enumerate().filter_map(|(place, it)| Some((place, kind(it)?)));
    // Of several, the first one counts.
    places.rev().map(|(place, it)| ((it.group, it.version, it.kind), place)).collect()
});

/// A definition's text, and what it says once it was asked for.
struct Paragraph {
    name: &'static str,
    /// What stands behind the name in the first line.
    head: &'static str,
    lines: &'static str,
    definition: OnceLock<Definition>,
}

impl Paragraph {
    fn new(text: &'static str) -> Self {
        let (first, lines) = text.split_once('\n').unwrap_or((text, ""));
        let (name, head) = first.split_once(' ').unwrap_or((first, ""));
        Self { name, head, lines, definition: OnceLock::new() }
    }

    /// The text is part of this program, so a line that makes no sense is left out here and found
    /// by the tests.
    fn definition(&self) -> &Definition {
        self.definition.get_or_init(|| {
            let package = self.name.rsplit_once('.').map_or("", |(package, _)| package);
            let fields = self.lines.lines().filter_map(|it| parse_field(it, package));
            let head = || self.head.split(' ');
            Definition {
                name: self.name,
                kind: head().find_map(parse_kind),
                map_type: head().find_map(|it| it.strip_prefix("map=")),
                any: head().any(|it| it == "any"),
                fields: fields.collect(),
            }
        })
    }
}

/// The definition named `name`.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    TABLE.get(position(name)?).map(Paragraph::definition)
}

/// The definition of objects that say they are of this kind.
#[must_use]
pub fn definition_of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Definition> {
    TABLE.get(*OF_KINDS.get(&(group, version, kind))?).map(Paragraph::definition)
}

fn position(name: &str) -> Option<usize> {
    TABLE.binary_search_by(|it| it.name.cmp(name)).ok()
}

/// Finds the paragraphs of the text, which is sorted by definition and by field.
fn index(text: &'static str) -> Vec<Paragraph> {
    text.split("\n\n").filter(|it| !it.starts_with('#')).map(Paragraph::new).collect()
}

fn parse_kind(text: &'static str) -> Option<GroupVersionKind> {
    let mut parts = text.split('/');
    let (group, version, kind) = (parts.next()?, parts.next()?, parts.next()?);
    Some(GroupVersionKind { group, version, kind })
}

fn parse_field(line: &'static str, package: &str) -> Option<Field> {
    // The values are last and may have spaces.
    let (line, choices) =
        line.split_once(" enum=").map_or((line, None), |(line, it)| (line, Some(it)));
    let mut words = line.trim_start().split(' ');
    let (name, kind) = (words.next()?, words.next()?);
    let marks = name.find(['!', '?', '+']).unwrap_or(name.len());
    let (name, marks) = name.split_at_checked(marks)?;
    let mut field = Field {
        name,
        kind: parse_type(kind, package)?,
        required: marks.contains('!'),
        zero: match (marks.contains('?'), marks.contains('+')) {
            (true, _) => Zero::Distinct,
            (false, true) => Zero::Written,
            (false, false) => Zero::Absent,
        },
        wire: Wire::default(),
        list_type: None,
        list_keys: None,
        map_type: None,
        merge: false,
        retain_keys: false,
        merge_key: None,
        default: None,
        named: None,
        choices,
        limits: Limits::default(),
        pattern: None,
    };
    for word in words {
        if let Some(numbers) = word.strip_prefix('#') {
            field.wire.numbers =
                numbers.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
            continue;
        }
        let (attribute, value) = word.split_once('=').unwrap_or((word, ""));
        match attribute {
            "list" => field.list_type = Some(value),
            "keys" => field.list_keys = Some(value),
            "map" => field.map_type = Some(value),
            "merge" => field.merge_key = Some(value),
            "default" => field.default = Some(value),
            "go" => field.named = Some(value),
            "limits" => {
                let (min, max) = value.split_once("..")?;
                field.limits = Limits { min: min.parse().ok(), max: max.parse().ok() };
            }
            "pattern" => field.pattern = Some(value),
            "wrapped" => field.wire.wrapped = true,
            "patch" => {
                field.merge = value.split(',').any(|it| it == "merge");
                field.retain_keys = value.split(',').any(|it| it == "retainKeys");
            }
            _ => return None,
        }
    }
    Some(field)
}

fn parse_type(text: &str, package: &str) -> Option<Type> {
    if let Some(items) = text.strip_prefix("[]") {
        return Some(Type::List(Box::new(parse_type(items, package)?)));
    }
    if let Some(values) = text.strip_prefix("{}") {
        return Some(Type::Map(Box::new(parse_type(values, package)?)));
    }
    Some(match text {
        "string" => Type::String,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "intstr" => Type::IntOrString,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "any" => Type::Any,
        name if name.starts_with('.') => Type::Object(position(&format!("{package}{name}"))?),
        name => Type::Object(position(name)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Definition> {
        TABLE.iter().map(Paragraph::definition)
    }

    #[test]
    fn no_line_is_lost() {
        let lines = TEXT.lines().filter(|it| it.starts_with('\t')).count();
        assert_eq!(lines, all().map(|it| it.fields.len()).sum::<usize>());
        let heads = TEXT.lines().filter(|it| it.starts_with("io.") || it.starts_with("dev."));
        let heads = heads.count();
        assert_eq!(heads, TABLE.len());
    }

    #[test]
    fn every_definition_and_field_can_be_looked_up() {
        for it in all() {
            assert_eq!(definition(it.name).map(|it| it.name), Some(it.name));
            for field in &it.fields {
                assert!(it.field(field.name).is_some(), "{} {}", it.name, field.name);
            }
        }
    }

    #[test]
    fn attributes_are_read() {
        let ports = definition("io.k8s.api.core.v1.Container").unwrap().field("ports").unwrap();
        assert_eq!(ports.list_keys, Some("containerPort,protocol"));
        assert_eq!(ports.merge_key, Some("containerPort"));
        let port = ports.kind.below().unwrap();
        assert_eq!(port.field("protocol").unwrap().default, Some("TCP"));
        assert!(port.field("containerPort").unwrap().required);
        assert_eq!(port.field("containerPort").unwrap().zero, Zero::Written);
        assert_eq!(port.field("hostPort").unwrap().zero, Zero::Absent);
        assert_eq!(port.field("protocol").unwrap().choices, Some("SCTP,TCP,UDP"));
        assert_eq!(port.field("protocol").unwrap().named, Some("v1.Protocol"));
        let pod = definition("io.k8s.api.core.v1.Pod").unwrap();
        assert_eq!(pod.kind.unwrap().kind, "Pod");
        let empty_dir = definition("io.k8s.api.core.v1.Volume").unwrap().field("emptyDir").unwrap();
        assert_eq!(
            (empty_dir.wire.numbers.as_slice(), empty_dir.zero),
            (&[2, 2][..], Zero::Distinct)
        );
        let reference = definition("io.k8s.api.core.v1.ObjectReference").unwrap();
        assert_eq!(reference.map_type, Some("atomic"));
    }
}

//! How the original's Go types differ from JSON: the names its decoder quotes when a value has the
//! wrong type, and the fields whose zero value is the same as none.

use super::table::{Definition, Field, Type, Zero};

/// Whether zero, `false` or the empty text in `field` is the same as none.
pub(super) fn zero_is_none(field: &Field) -> bool {
    let scalar =
        matches!(field.kind, Type::String | Type::Int32 | Type::Int64 | Type::Double | Type::Bool);
    scalar && field.zero == Zero::Absent
}

/// The Go type of a value of `kind` in `field`. `kind` is the field's type or, for a
/// value inside a list or map, that of the item.
pub(super) fn type_name(field: &Field, kind: &Type) -> String {
    match kind {
        Type::String => field.named.unwrap_or("string").to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Any => "runtime.RawExtension".to_owned(),
        Type::Object(_) => kind.below().map(struct_name).unwrap_or_default(),
        Type::List(items) => format!("[]{}", type_name(field, items)),
        Type::Map(values) if **values == Type::Quantity => "v1.ResourceList".to_owned(),
        Type::Map(values) => format!("map[string]{}", type_name(field, values)),
    }
}

/// The Go type of an object: package, which is named like the version, and type.
pub(super) fn struct_name(definition: &'static Definition) -> String {
    let mut parts = definition.name.rsplit('.');
    let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{name}")
}

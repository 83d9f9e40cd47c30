//! Heka's protobuf messages as they stand on the wire: `message.proto` of hekad 0.11 (proto2), field by field.
//!
//! In and out: nothing but bytes. Every key that the Go client writes is `Some` here even where it holds the default
//! (`value_type` of a text, an empty `representation`), because frames are to be the same byte for byte.

/// What stands before a message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Header {
    #[prost(uint32, required, tag = "1")]
    pub(crate) message_length: u32,
    #[prost(enumeration = "HashFunction", optional, tag = "3")]
    pub(crate) hmac_hash_function: Option<i32>,
    #[prost(string, optional, tag = "4")]
    pub(crate) hmac_signer: Option<String>,
    #[prost(uint32, optional, tag = "5")]
    pub(crate) hmac_key_version: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub(crate) hmac: Option<Vec<u8>>,
}

/// What a message is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum HashFunction {
    Md5 = 0,
    Sha1 = 1,
}

/// One message. hekad requires neither `uuid` nor `timestamp`, although its definition does.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(crate) uuid: Vec<u8>,
    /// Nanoseconds since the epoch.
    #[prost(int64, required, tag = "2")]
    pub(crate) timestamp: i64,
    #[prost(string, optional, tag = "3")]
    pub(crate) r#type: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) logger: Option<String>,
    #[prost(int32, optional, tag = "5", default = "7")]
    pub(crate) severity: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub(crate) payload: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(crate) env_version: Option<String>,
    #[prost(int32, optional, tag = "8")]
    pub(crate) pid: Option<i32>,
    #[prost(string, optional, tag = "9")]
    pub(crate) hostname: Option<String>,
    #[prost(message, repeated, tag = "10")]
    pub(crate) fields: Vec<Field>,
}

/// One field: a name and any number of values of one type.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Field {
    #[prost(string, required, tag = "1")]
    pub(crate) name: String,
    #[prost(enumeration = "ValueType", optional, tag = "2")]
    pub(crate) value_type: Option<i32>,
    #[prost(string, optional, tag = "3")]
    pub(crate) representation: Option<String>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) value_string: Vec<String>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub(crate) value_bytes: Vec<Vec<u8>>,
    #[prost(int64, repeated, packed = "true", tag = "6")]
    pub(crate) value_integer: Vec<i64>,
    #[prost(double, repeated, packed = "true", tag = "7")]
    pub(crate) value_double: Vec<f64>,
    #[prost(bool, repeated, packed = "true", tag = "8")]
    pub(crate) value_bool: Vec<bool>,
}

/// What type the values of a field have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ValueType {
    String = 0,
    Bytes = 1,
    Integer = 2,
    Double = 3,
    Bool = 4,
}

/// The values of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Strings(Vec<String>),
    Bytes(Vec<Vec<u8>>),
    Integers(Vec<i64>),
    Doubles(Vec<f64>),
    Bools(Vec<bool>),
}

impl Field {
    pub(crate) fn new(name: String, values: Values, representation: &str) -> Field {
        let mut field = Field { name, representation: Some(representation.to_owned()), ..Field::default() };
        let value_type = match values {
            Values::Strings(values) => {
                field.value_string = values;
                ValueType::String
            }
            Values::Bytes(values) => {
                field.value_bytes = values;
                ValueType::Bytes
            }
            Values::Integers(values) => {
                field.value_integer = values;
                ValueType::Integer
            }
            Values::Doubles(values) => {
                field.value_double = values;
                ValueType::Double
            }
            Values::Bools(values) => {
                field.value_bool = values;
                ValueType::Bool
            }
        };
        field.value_type = Some(value_type as i32);
        field
    }

    /// The values of the type that the field says it has; `None` for a type that Heka does not know.
    pub(crate) fn into_values(self) -> Option<Values> {
        let value_type = ValueType::try_from(self.value_type.unwrap_or_default()).ok()?;
        Some(match value_type {
            ValueType::String => Values::Strings(self.value_string),
            ValueType::Bytes => Values::Bytes(self.value_bytes),
            ValueType::Integer => Values::Integers(self.value_integer),
            ValueType::Double => Values::Doubles(self.value_double),
            ValueType::Bool => Values::Bools(self.value_bool),
        })
    }
}

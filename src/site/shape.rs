//! Shapes a value may take in a file: one or a list of it, a number or a table.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use crate::spec::{Archive, Ulimit};

/// `x = A` or `x = [A, A]`, each with its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Many<T>(pub Vec<Spanned<T>>);

enum OneOrMany<T> {
    One(T),
    Many(Vec<Spanned<T>>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Spanned::<OneOrMany<T>>::deserialize(deserializer)?;
        let span = whole.span();
        Ok(Many(match whole.into_inner() {
            OneOrMany::One(one) => vec![Spanned::new(span, one)],
            OneOrMany::Many(many) => many,
        }))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(OneOrMany::One)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany::Many(many))
            }
        }

        deserializer.deserialize_any(Shape(PhantomData))
    }
}

/// `"https://…"` or `{ url = "https://…", sha256 = "…" }`.
#[derive(Debug, Clone)]
pub(super) struct RawArchive(pub Archive);

impl<'de> Deserialize<'de> for RawArchive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = RawArchive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the URL of an archive, or { url = …, sha256 = … }")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<RawArchive, E> {
                Ok(RawArchive(Archive { url: url.to_owned(), sha256: None }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawArchive, A::Error> {
                Archive::deserialize(MapAccessDeserializer::new(map)).map(RawArchive)
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

/// `16384` or `{ soft = 1024, hard = 16384 }`.
#[derive(Debug, Clone)]
pub(super) struct RawUlimit(pub Ulimit);

impl<'de> Deserialize<'de> for RawUlimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = RawUlimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or { soft = …, hard = … }")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<RawUlimit, E> {
                let both = u64::try_from(number).map_err(|_| E::custom("a limit is not negative"))?;
                Ok(RawUlimit(Ulimit { soft: both, hard: both }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawUlimit, A::Error> {
                let limit = Ulimit::deserialize(MapAccessDeserializer::new(map))?;
                match limit.soft <= limit.hard {
                    true => Ok(RawUlimit(limit)),
                    false => Err(A::Error::custom("the soft limit is above the hard one")),
                }
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

//! The `[model]` section: a sum of components by name. The only place that names every model.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_attention::{
    Din, DinConfig, SasRec, SasRecConfig, TargetAttention, TargetAttentionConfig,
};
use crossfield_core::{
    AttentionWeights, Component, ComponentConfig, Contribution, Error, Examples, Init, Lookup,
    Schema, TableConfig,
};
use crossfield_embedding::{DotProduct, DotProductConfig};
use crossfield_ffm::{Ffm, FfmConfig};
use crossfield_fm::{Fm, FmConfig};
use crossfield_fused::{FusedComponent, FusedConfig};
use crossfield_mf::{BiasedMf, BiasedMfConfig};
use crossfield_train::{explain, nearest};
use crossfield_wide_deep::{Deep, DeepConfig, Wide, WideConfig};
use serde::{Deserialize, Serialize};

/// Names every kind of component once: how a run file spells it, its configuration, the component.
macro_rules! kinds {
    ($($variant:ident $kind:literal $config:ident $component:ident)*) => {
        /// Kinds of components, as a run file spells them.
        pub(crate) const KINDS: [&str; [$($kind),*].len()] = [$($kind),*];

        /// The configuration of one component.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Choice {
            $($variant($config),)*
        }

        /// One component.
        #[derive(Module, Debug)]
        pub(crate) enum AnyComponent {
            $($variant($component),)*
        }

        impl Choice {
            /// The component called `name` of a kind; `None`: there is no such kind.
            fn read(kind: &str, name: &str, options: toml::Table) -> Option<Result<Self, String>> {
                match kind {
                    $($kind => Some(read::<$config>(name, options).map(|mut config| {
                        config.name = name.to_owned();
                        Self::$variant(config)
                    })),)*
                    _ => None,
                }
            }

            fn name(&self) -> &str {
                match self {
                    $(Self::$variant(config) => &config.name,)*
                }
            }

            fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)*
                }
            }

            /// All options with their values, but the name.
            fn options(&self) -> toml::Table {
                let table = match self {
                    $(Self::$variant(config) => toml::Table::try_from(config),)*
                };
                table.expect("options are texts, numbers and lists")
            }

            fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
                match self {
                    $(Self::$variant(config) => config.tables(schema),)*
                }
            }

            fn check_rows(&self, schema: &Schema, rows: &Examples<'_>) -> Result<(), Error> {
                match self {
                    $(Self::$variant(config) => config.check_rows(schema, rows),)*
                }
            }

            fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
                match self {
                    $(Self::$variant(config) => config.flops(schema, features),)*
                }
            }

            fn init(&self, schema: &Schema, init: &Init) -> Result<AnyComponent, Error> {
                match self {
                    $(Self::$variant(config) => {
                        Ok(AnyComponent::$variant(config.init(schema, init)?))
                    })*
                }
            }
        }

        impl AnyComponent {
            fn forward(&self, x: &Lookup) -> Tensor<2> {
                match self {
                    $(Self::$variant(component) => component.forward(x),)*
                }
            }

            fn explain(&self, x: &Lookup) -> Vec<Contribution> {
                match self {
                    $(Self::$variant(component) => component.explain(x),)*
                }
            }

            fn attention(&self, x: &Lookup) -> Vec<AttentionWeights> {
                match self {
                    $(Self::$variant(component) => component.attention(x),)*
                }
            }
        }
    };
}

kinds! {
    Wide "wide" WideConfig Wide
    Deep "deep" DeepConfig Deep
    Fm "fm" FmConfig Fm
    Ffm "ffm" FfmConfig Ffm
    Mf "mf" BiasedMfConfig BiasedMf
    Dot "dot" DotProductConfig DotProduct
    Din "din" DinConfig Din
    Attention "attention" TargetAttentionConfig TargetAttention
    SasRec "sasrec" SasRecConfig SasRec
}

/// The options of a component, from its section of a run file.
fn read<T: serde::de::DeserializeOwned>(name: &str, options: toml::Table) -> Result<T, String> {
    options
        .try_into()
        .map_err(|error: toml::de::Error| explain(&format!("model.{name}"), error.message()))
}

/// `[model]`: the components whose scores add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Table", into = "toml::Table")]
pub(crate) struct ModelConfig {
    components: Vec<Choice>,
    /// Whether a bias is added to the sum.
    pub(crate) bias: bool,
}

impl ModelConfig {
    /// The components as passes over rows.
    pub(crate) fn fused(
        &self,
        schema: &Schema,
    ) -> Result<Vec<Box<dyn FusedComponent>>, crossfield_train::Error> {
        let fused = self.components.iter().map(|component| {
            let config: &dyn FusedConfig = component.fused()?;
            Ok(config.fused(schema)?)
        });
        fused.collect()
    }

    /// Whether all components have a form for the fused executor.
    pub(crate) fn check_fused(&self) -> Result<(), crossfield_train::Error> {
        let mut components = self.components.iter();
        components.try_for_each(|component| component.fused().map(drop))
    }

    /// The one component, if it is an FFM and there is no other.
    pub(crate) fn only_ffm(&self) -> Option<&FfmConfig> {
        match self.components.as_slice() {
            [Choice::Ffm(config)] => Some(config),
            _ => None,
        }
    }

    /// The names of the components.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.components.iter().map(Choice::name).collect()
    }

    /// The kinds of the components.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.components.iter().map(Choice::kind).collect()
    }

    /// What there is to say of each component, for rows that have so many features of each field.
    pub(crate) fn describe(&self, schema: &Schema, features: &[f64]) -> Vec<Described> {
        let described = self.components.iter().map(|component| {
            let defaults = Choice::defaults(component.kind()).unwrap_or_default();
            let options = component.options().into_iter();
            Described {
                name: component.name().to_owned(),
                kind: component.kind(),
                changed: options
                    .filter(|(key, value)| defaults.get(key) != Some(value))
                    .collect(),
                flops: component.flops(schema, features),
            }
        });
        described.collect()
    }

    /// Each component by name, and the names of the tables that it reads.
    pub(crate) fn readers(&self, schema: &Schema) -> Result<Vec<(String, Vec<String>)>, Error> {
        let readers = self.components.iter().map(|component| {
            let tables = component.tables(schema)?.into_iter();
            let tables = tables.map(|table| table.name).collect();
            Ok((component.name().to_owned(), tables))
        });
        readers.collect()
    }

    /// The matrix factorization that this is, if there is nothing beside it.
    pub(crate) fn only_mf(&self) -> Option<&BiasedMfConfig> {
        match self.components.as_slice() {
            [Choice::Mf(config)] => Some(config),
            _ => None,
        }
    }

    /// The self-attentive encoder that this is, if there is nothing beside it.
    pub(crate) fn only_sasrec(&self) -> Option<&SasRecConfig> {
        match self.components.as_slice() {
            [Choice::SasRec(config)] => Some(config),
            _ => None,
        }
    }

    /// The factorization machine that this is, if there is nothing beside it but a bias.
    pub(crate) fn only_fm(&self) -> Result<&FmConfig, String> {
        match &self.components[..] {
            [Choice::Fm(config)] if self.bias => Ok(config),
            [Choice::Fm(_)] => Err("the model has `bias = false`: leave it out".into()),
            _ => Err(format!("the model is {}", self.kinds().join(" + "))),
        }
    }
}

/// What there is to say of a component.
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Options that differ from their defaults.
    pub(crate) changed: toml::Table,
    /// Floating-point operations of a row.
    pub(crate) flops: Option<f64>,
}

/// A sum of components.
#[derive(Module, Debug)]
pub(crate) struct Components {
    components: Vec<AnyComponent>,
}

impl Choice {
    fn parse(name: &str, mut options: toml::Table) -> Result<Self, String> {
        let kind = match options.remove("kind") {
            Some(toml::Value::String(kind)) => kind,
            Some(other) => return Err(format!("`model.{name}.kind` is {other}, expected a text")),
            None => name.to_owned(),
        };
        Self::read(&kind, name, options).unwrap_or_else(|| {
            let advice = nearest(&kind, &KINDS)
                .map_or(String::new(), |near| format!(": did you mean `{near}`?"));
            let known = KINDS.join(", ");
            Err(format!(
                "unknown kind of model `{kind}`{advice} (known: {known})"
            ))
        })
    }

    fn fused(&self) -> Result<&dyn FusedConfig, crossfield_train::Error> {
        match self {
            Self::Wide(config) => Ok(config),
            Self::Fm(config) => Ok(config),
            Self::Ffm(config) => Ok(config),
            Self::Mf(config) => Ok(config),
            _ => Err(crossfield_train::Error::Option {
                option: "train.executor".into(),
                reason: format!(
                    "the fused executor has no `{}`{}; executor = \"burn\" has",
                    self.kind(),
                    match self {
                        Self::Dot(_) => " (of one user and one item it has: kind = \"mf\")",
                        _ => "",
                    }
                ),
            }),
        }
    }

    /// The options of a kind with their defaults, as a run file would hold them.
    pub(crate) fn defaults(kind: &str) -> Option<toml::Table> {
        Some(Self::parse(kind, toml::Table::new()).ok()?.options())
    }
}

impl TryFrom<toml::Table> for ModelConfig {
    type Error = String;

    fn try_from(mut model: toml::Table) -> Result<Self, String> {
        let sum =
            match (model.remove("kind"), model.remove("sum")) {
                (Some(kind), None) => vec![kind],
                (None, Some(toml::Value::Array(names))) if !names.is_empty() => names,
                _ => return Err(
                    "expected `kind = \"fm\"`, `sum` with a list of names, or `average` with a \
                               list of runs"
                        .into(),
                ),
            };
        let bias = match model.remove("bias") {
            Some(toml::Value::Boolean(bias)) => bias,
            Some(other) => return Err(format!("`model.bias` is {other}, expected true or false")),
            None => true,
        };
        let mut components: Vec<Choice> = Vec::new();
        for name in sum {
            let toml::Value::String(name) = name else {
                return Err(format!(
                    "`{name}` in the sum is not the name of a component"
                ));
            };
            if components.iter().any(|component| component.name() == name) {
                return Err(format!(
                    "`{name}` is in the sum twice: give the second one a name of its own and a `kind`"
                ));
            }
            let options = match model.remove(&name) {
                Some(toml::Value::Table(options)) => options,
                Some(other) => return Err(format!("`model.{name}` is {other}, expected a table")),
                None => toml::Table::new(),
            };
            components.push(Choice::parse(&name, options)?);
        }
        if let Some(unused) = model.keys().next() {
            let names: Vec<&str> = components.iter().map(Choice::name).collect();
            let advice = nearest(unused, &names)
                .map_or(String::new(), |near| format!(": did you mean `{near}`?"));
            return Err(format!(
                "unknown key `model.{unused}`{advice} (in the sum: {})",
                names.join(", ")
            ));
        }
        Ok(Self { components, bias })
    }
}

impl From<ModelConfig> for toml::Table {
    fn from(config: ModelConfig) -> Self {
        let names = config
            .components
            .iter()
            .map(|component| component.name().into())
            .collect();
        let mut model = toml::Table::from_iter([
            ("sum".to_owned(), toml::Value::Array(names)),
            ("bias".to_owned(), config.bias.into()),
        ]);
        for component in &config.components {
            let mut options = component.options();
            options.insert("kind".into(), component.kind().into());
            model.insert(component.name().into(), options.into());
        }
        model
    }
}

impl ComponentConfig for ModelConfig {
    type Component = Components;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let tables = self
            .components
            .iter()
            .map(|component| component.tables(schema));
        Ok(tables.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn check_rows(&self, schema: &Schema, rows: &Examples<'_>) -> Result<(), Error> {
        let mut components = self.components.iter();
        components.try_for_each(|component| component.check_rows(schema, rows))
    }

    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let components = self.components.iter();
        components
            .map(|component| component.flops(schema, features))
            .sum()
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Components, Error> {
        let components = self
            .components
            .iter()
            .map(|component| component.init(schema, init));
        Ok(Components {
            components: components.collect::<Result<_, Error>>()?,
        })
    }
}

impl Component for Components {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let scores = self.components.iter().map(|component| component.forward(x));
        scores
            .reduce(|sum, score| sum + score)
            .expect("a model has a component")
    }

    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let parts = self.components.iter().map(|component| component.explain(x));
        parts.flatten().collect()
    }

    fn attention(&self, x: &Lookup) -> Vec<AttentionWeights> {
        let weights = self
            .components
            .iter()
            .map(|component| component.attention(x));
        weights.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelConfig, String> {
        ModelConfig::try_from(toml::from_str::<toml::Table>(text).unwrap())
    }

    #[test]
    fn a_kind_is_short_for_a_sum_of_one() {
        assert_eq!(parse("kind = 'fm'"), parse("sum = ['fm']"));
        let model =
            parse("sum = ['wide', 'small']\n[small]\nkind = 'fm'\nembedding_dim = 2").unwrap();
        let Choice::Fm(fm) = &model.components[1] else {
            panic!("{model:?}")
        };
        assert_eq!((fm.name.as_str(), fm.embedding_dim), ("small", 2));
        assert_eq!(
            ModelConfig::try_from(toml::Table::from(model.clone())).unwrap(),
            model
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (
                "kind = 'fn'",
                "unknown kind of model `fn`: did you mean `fm`? (known: wide, deep, fm, ffm, mf, dot, \
                 din, attention, sasrec)",
            ),
            (
                "kind = 'fm'\n[fm]\nembeding_dim = 2",
                "unknown key `model.fm.embeding_dim`: did you mean `embedding_dim`? (known: fields, \
                 embedding_dim, linear, init_std, share)",
            ),
            (
                "kind = 'fm'\n[wide]\nfields = []",
                "unknown key `model.wide` (in the sum: fm)",
            ),
            (
                "sum = ['fm', 'fm']",
                "`fm` is in the sum twice: give the second one a name of its own and a `kind`",
            ),
            (
                "",
                "expected `kind = \"fm\"`, `sum` with a list of names, or `average` with a list of runs",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }
}

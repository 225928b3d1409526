//! The `[model]` section: a sum of components by name. The only place that names every model.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, Init, Lookup, Schema, TableConfig,
};
use crossfield_embedding::{DotProduct, DotProductConfig};
use crossfield_ffm::{Ffm, FfmConfig};
use crossfield_fm::{Fm, FmConfig};
use crossfield_fused::{FusedComponent, FusedConfig};
use crossfield_mf::{BiasedMf, BiasedMfConfig};
use crossfield_train::{explain, nearest};
use crossfield_wide_deep::{Deep, DeepConfig, Wide, WideConfig};
use serde::{Deserialize, Serialize};

/// Kinds of components, as a run file spells them.
pub(crate) const KINDS: [&str; 6] = ["wide", "deep", "fm", "ffm", "mf", "dot"];

/// The configuration of one component.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    Wide(WideConfig),
    Deep(DeepConfig),
    Fm(FmConfig),
    Ffm(FfmConfig),
    Mf(BiasedMfConfig),
    Dot(DotProductConfig),
}

/// One component.
#[derive(Module, Debug)]
pub(crate) enum AnyComponent {
    Wide(Wide),
    Deep(Deep),
    Fm(Fm),
    Ffm(Ffm),
    Mf(BiasedMf),
    Dot(DotProduct),
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

    /// The matrix factorization that this is, if there is nothing beside it.
    pub(crate) fn only_mf(&self) -> Option<&BiasedMfConfig> {
        match self.components.as_slice() {
            [Choice::Mf(config)] => Some(config),
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
        fn read<T: serde::de::DeserializeOwned>(
            name: &str,
            options: toml::Table,
        ) -> Result<T, String> {
            options.try_into().map_err(|error: toml::de::Error| {
                explain(&format!("model.{name}"), error.message())
            })
        }
        let mut choice = match kind.as_str() {
            "wide" => Self::Wide(read(name, options)?),
            "deep" => Self::Deep(read(name, options)?),
            "fm" => Self::Fm(read(name, options)?),
            "ffm" => Self::Ffm(read(name, options)?),
            "mf" => Self::Mf(read(name, options)?),
            "dot" => Self::Dot(read(name, options)?),
            unknown => {
                let advice = nearest(unknown, &KINDS)
                    .map_or(String::new(), |near| format!(": did you mean `{near}`?"));
                return Err(format!(
                    "unknown kind of model `{unknown}`{advice} (known: {})",
                    KINDS.join(", ")
                ));
            }
        };
        match &mut choice {
            Self::Wide(config) => config.name = name.to_owned(),
            Self::Deep(config) => config.name = name.to_owned(),
            Self::Fm(config) => config.name = name.to_owned(),
            Self::Ffm(config) => config.name = name.to_owned(),
            Self::Mf(config) => config.name = name.to_owned(),
            Self::Dot(config) => config.name = name.to_owned(),
        }
        Ok(choice)
    }

    fn name(&self) -> &str {
        match self {
            Self::Wide(config) => &config.name,
            Self::Deep(config) => &config.name,
            Self::Fm(config) => &config.name,
            Self::Ffm(config) => &config.name,
            Self::Mf(config) => &config.name,
            Self::Dot(config) => &config.name,
        }
    }

    fn fused(&self) -> Result<&dyn FusedConfig, crossfield_train::Error> {
        match self {
            Self::Wide(config) => Ok(config),
            Self::Fm(config) => Ok(config),
            Self::Ffm(config) => Ok(config),
            Self::Mf(config) => Ok(config),
            Self::Deep(_) | Self::Dot(_) => Err(crossfield_train::Error::Option {
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

    fn kind(&self) -> &'static str {
        match self {
            Self::Wide(_) => "wide",
            Self::Deep(_) => "deep",
            Self::Fm(_) => "fm",
            Self::Ffm(_) => "ffm",
            Self::Mf(_) => "mf",
            Self::Dot(_) => "dot",
        }
    }

    /// All options with their values, but the name.
    fn options(&self) -> toml::Table {
        let table = match self {
            Self::Wide(config) => toml::Table::try_from(config),
            Self::Deep(config) => toml::Table::try_from(config),
            Self::Fm(config) => toml::Table::try_from(config),
            Self::Ffm(config) => toml::Table::try_from(config),
            Self::Mf(config) => toml::Table::try_from(config),
            Self::Dot(config) => toml::Table::try_from(config),
        };
        table.expect("options are texts, numbers and lists")
    }

    /// The options of a kind with their defaults, as a run file would hold them.
    pub(crate) fn defaults(kind: &str) -> Option<toml::Table> {
        Some(Self::parse(kind, toml::Table::new()).ok()?.options())
    }
}

impl TryFrom<toml::Table> for ModelConfig {
    type Error = String;

    fn try_from(mut model: toml::Table) -> Result<Self, String> {
        let sum = match (model.remove("kind"), model.remove("sum")) {
            (Some(kind), None) => vec![kind],
            (None, Some(toml::Value::Array(names))) if !names.is_empty() => names,
            _ => return Err("expected `kind = \"fm\"`, or `sum` with a list of names".into()),
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
        let mut tables = Vec::new();
        for component in &self.components {
            tables.extend(match component {
                Choice::Wide(config) => config.tables(schema)?,
                Choice::Deep(config) => config.tables(schema)?,
                Choice::Fm(config) => config.tables(schema)?,
                Choice::Ffm(config) => config.tables(schema)?,
                Choice::Mf(config) => config.tables(schema)?,
                Choice::Dot(config) => config.tables(schema)?,
            });
        }
        Ok(tables)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Components, Error> {
        let components = self
            .components
            .iter()
            .map(|component| {
                Ok(match component {
                    Choice::Wide(config) => AnyComponent::Wide(config.init(schema, init)?),
                    Choice::Deep(config) => AnyComponent::Deep(config.init(schema, init)?),
                    Choice::Fm(config) => AnyComponent::Fm(config.init(schema, init)?),
                    Choice::Ffm(config) => AnyComponent::Ffm(config.init(schema, init)?),
                    Choice::Mf(config) => AnyComponent::Mf(config.init(schema, init)?),
                    Choice::Dot(config) => AnyComponent::Dot(config.init(schema, init)?),
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Components { components })
    }
}

impl Component for Components {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        self.components
            .iter()
            .map(|component| match component {
                AnyComponent::Wide(wide) => wide.forward(x),
                AnyComponent::Deep(deep) => deep.forward(x),
                AnyComponent::Fm(fm) => fm.forward(x),
                AnyComponent::Ffm(ffm) => ffm.forward(x),
                AnyComponent::Mf(mf) => mf.forward(x),
                AnyComponent::Dot(dot) => dot.forward(x),
            })
            .reduce(|sum, score| sum + score)
            .expect("a model has a component")
    }

    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        self.components
            .iter()
            .flat_map(|component| match component {
                AnyComponent::Wide(wide) => wide.explain(x),
                AnyComponent::Deep(deep) => deep.explain(x),
                AnyComponent::Fm(fm) => fm.explain(x),
                AnyComponent::Ffm(ffm) => ffm.explain(x),
                AnyComponent::Mf(mf) => mf.explain(x),
                AnyComponent::Dot(dot) => dot.explain(x),
            })
            .collect()
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
                "unknown kind of model `fn`: did you mean `fm`? (known: wide, deep, fm, ffm, mf, dot)",
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
                "expected `kind = \"fm\"`, or `sum` with a list of names",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }
}

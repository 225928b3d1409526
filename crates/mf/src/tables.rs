//! The parameters of the solvers as the bias and the tables of the component.

use crossfield_core::{
    ComponentConfig, Error as ConfigError, Examples, FieldId, Schema, factor_table,
};

use crate::interactions::{check_index, pairs_of};
use crate::{BiasedMfConfig, Biases, Error, MfParameters};

/// Where the parts of the parameters lie, as one list of numbers.
///
/// ```
/// use crossfield_core::{Field, FieldKind, Schema};
/// use crossfield_mf::{BiasedMfConfig, MfParameters, MfTables};
///
/// let field = |name: &str, rows| Field {
///     name: name.into(),
///     kind: FieldKind::Categorical,
///     vocabulary: name.into(),
///     rows,
///     oov_row: None,
/// };
/// let schema = Schema { fields: vec![field("user", 1), field("item", 2)], dense: vec![] };
/// let config = BiasedMfConfig { embedding_dim: 1, ..BiasedMfConfig::default() };
/// let tables = MfTables::of(&config, true, &schema)?;
/// let names: Vec<&str> = tables.tensors().iter().map(|(name, _)| name.as_str()).collect();
/// assert_eq!(names, ["bias", "mf.user", "mf.item", "v1.user", "v1.item"]);
///
/// let parameters = MfParameters {
///     embedding_dim: 1,
///     mean: 3.5,
///     user_bias: vec![0.5],
///     item_bias: vec![0.0, -1.0],
///     users: vec![2.0],
///     items: vec![4.0, 5.0],
/// };
/// let values = tables.values(&parameters);
/// assert_eq!(values, [3.5, 0.5, 0.0, -1.0, 2.0, 4.0, 5.0]);
/// assert_eq!(tables.parameters(&values)?, parameters);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MfTables {
    embedding_dim: usize,
    fields: [FieldId; 2],
    sizes: [usize; 2],
    tensors: Vec<(String, Vec<usize>)>,
    /// What each tensor is.
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Mean,
    UserBias,
    ItemBias,
    Users,
    Items,
}

impl MfTables {
    /// Those of a configuration; `mean`: whether the model has a bias, which is μ.
    ///
    /// # Errors
    /// As [`BiasedMfConfig::fields`]; [`ConfigError::OutOfRange`] where user and item share a
    /// vocabulary, and with it a table.
    pub fn of(config: &BiasedMfConfig, mean: bool, schema: &Schema) -> Result<Self, ConfigError> {
        // Whatever else is wrong with the configuration.
        config.tables(schema)?;
        let fields = config.fields(schema)?;
        let [user, item] = fields.map(|field| &schema.fields[field]);
        if user.vocabulary == item.vocabulary {
            return Err(ConfigError::OutOfRange {
                component: config.name.clone(),
                option: "item",
                value: format!("`{}` of the vocabulary `{}`", item.name, item.vocabulary),
                expected: "a vocabulary other than that of the user: the solvers fit one after \
                           the other"
                    .into(),
            });
        }
        let sizes = [user, item].map(|field| field.rows as usize);
        let dim = config.embedding_dim;
        let bias = |vocabulary: &str| format!("{}.{vocabulary}", config.name);
        let mut parts = Vec::new();
        let mut tensors = Vec::new();
        let mut add = |part, name, shape: &[usize]| {
            parts.push(part);
            tensors.push((name, shape.to_vec()));
        };
        if mean {
            add(Part::Mean, "bias".to_owned(), &[1]);
        }
        if config.biases == Biases::Both {
            add(Part::UserBias, bias(&user.vocabulary), &[sizes[0], 1]);
        }
        if config.biases != Biases::None {
            add(Part::ItemBias, bias(&item.vocabulary), &[sizes[1], 1]);
        }
        let users = factor_table(dim, &user.vocabulary);
        add(Part::Users, users, &[sizes[0], dim]);
        let items = factor_table(dim, &item.vocabulary);
        add(Part::Items, items, &[sizes[1], dim]);
        Ok(Self {
            embedding_dim: dim,
            fields,
            sizes,
            tensors,
            parts,
        })
    }

    /// The fields of user and item.
    pub fn fields(&self) -> [FieldId; 2] {
        self.fields
    }

    /// Rows of the tables of users and of items.
    pub fn sizes(&self) -> [usize; 2] {
        self.sizes
    }

    /// Name and shape of the bias and of each table.
    pub fn tensors(&self) -> &[(String, Vec<usize>)] {
        &self.tensors
    }

    /// The score of the pair of each row.
    ///
    /// # Errors
    /// [`Error::NotOneHot`], [`Error::IndexOutOfRange`].
    pub fn scores(
        &self,
        parameters: &MfParameters,
        examples: &Examples<'_>,
    ) -> Result<Vec<f64>, Error> {
        let [users, items] = self.sizes;
        let pairs = pairs_of(examples, self.fields)?.enumerate();
        let scores = pairs.map(|(row, [user, item])| {
            check_index(row, "user", user, users)?;
            check_index(row, "item", item, items)?;
            Ok(parameters.score(user as usize, item as usize))
        });
        scores.collect()
    }

    /// The values of all tensors, one after the other.
    ///
    /// # Panics
    /// For parameters of other shapes.
    pub fn values(&self, parameters: &MfParameters) -> Vec<f32> {
        let mut values = Vec::new();
        for (part, (name, shape)) in self.parts.iter().zip(&self.tensors) {
            let of_part = match part {
                Part::Mean => std::slice::from_ref(&parameters.mean),
                Part::UserBias => &parameters.user_bias,
                Part::ItemBias => &parameters.item_bias,
                Part::Users => &parameters.users,
                Part::Items => &parameters.items,
            };
            let expected: usize = shape.iter().product();
            assert_eq!(of_part.len(), expected, "values of `{name}`");
            values.extend_from_slice(of_part);
        }
        values
    }

    /// The parameters of such values; biases that the model does not have are empty.
    ///
    /// # Errors
    /// [`Error::Parameters`] for another number of values.
    pub fn parameters(&self, values: &[f32]) -> Result<MfParameters, Error> {
        let len = |shape: &[usize]| shape.iter().product::<usize>();
        let expected = self.tensors.iter().map(|(_, shape)| len(shape)).sum();
        if values.len() != expected {
            let got = values.len();
            return Err(Error::Parameters { got, expected });
        }
        let mut parameters = MfParameters {
            embedding_dim: self.embedding_dim,
            mean: 0.0,
            user_bias: Vec::new(),
            item_bias: Vec::new(),
            users: Vec::new(),
            items: Vec::new(),
        };
        let mut rest = values;
        for (part, (_, shape)) in self.parts.iter().zip(&self.tensors) {
            let (of_part, others) = rest.split_at(len(shape));
            rest = others;
            match part {
                Part::Mean => parameters.mean = of_part[0],
                Part::UserBias => parameters.user_bias = of_part.to_vec(),
                Part::ItemBias => parameters.item_bias = of_part.to_vec(),
                Part::Users => parameters.users = of_part.to_vec(),
                Part::Items => parameters.items = of_part.to_vec(),
            }
        }
        Ok(parameters)
    }
}

//! Saved forms that are tables of fields.

/// Declares the saved form of a state with fields of the same names, and both conversions.
///
/// A row is `#[n(NUMBER)] field: Type;`. Where the two differ, `saved EXPRESSION` makes what is
/// saved of the state's field, and `loaded EXPRESSION` the other way round; `?` in it refuses the
/// state. Both see all fields by their names. A field missing from the table does not compile.
///
/// The crate that uses it needs `minicbor`.
#[macro_export]
macro_rules! saved_form {
    ($(#[$about:meta])* $vis:vis struct $saved:ident: $state:ident {
        $(#[$number:meta] $field:ident: $type:ty $(, saved $to:expr)? $(, loaded $from:expr)?;)*
    }) => {
        $(#[$about])*
        #[derive(minicbor::Encode, minicbor::Decode)]
        #[cbor(map)]
        $vis struct $saved {
            $(#[$number] $field: $type,)*
        }

        impl From<&$state> for $saved {
            fn from(state: &$state) -> Self {
                let $state { $($field),* } = Clone::clone(state);
                $($(let $field = $to;)?)*
                Self { $($field),* }
            }
        }

        impl TryFrom<$saved> for $state {
            type Error = $crate::SectionError;

            fn try_from(saved: $saved) -> Result<Self, $crate::SectionError> {
                let $saved { $($field),* } = saved;
                $($(let $field = $from;)?)*
                Ok(Self { $($field),* })
            }
        }
    };
}

//! How a module declares its settings: each directive in one entry.
//!
//! [`settings!`](crate::http_settings) turns a module's table into three things: `Draft`, whose fields know "unset";
//! `Settings`, the frozen form that requests read; and `DIRECTIVES`, the entries of the directive table. Scopes merge
//! field by field: what a scope leaves unset it takes from the scope around it (`inherit`), or not (`own`).
//!
//! ```text
//! settings! {
//!     module index;
//!     values {
//!         /// What other directives set in passing; it has no directive of its own.
//!         handler: Option<Handler> = None, own;
//!     }
//!     fields {
//!         /// Names tried for a request of a folder.
//!         indexes: Indexes = Indexes::default(), inherit;
//!             "index" HTTP_SERVER_LOCATION, Arity::at_least(1), default "index.html", with set_index;
//!     }
//!     also {
//!         /// Another directive that sets the same field.
//!         "x" for indexes: Indexes, HTTP, Arity::exactly(1), default "", with set_x;
//!     }
//!     frozen {
//!         /// What is made of the fields, which the expression sees by their names, when the settings freeze.
//!         plan: Plan = Plan::of(&indexes);
//!     }
//!     plain {
//!         /// A directive that has no field of its own.
//!         "map" HTTP, Arity::exactly(2).block(), default "", set_map;
//!     }
//! }
//! ```
//!
//! `once f` sets the field to `f(&mut Scope, &Call) -> Result<T, Complaint>` and refuses a second use in one scope;
//! `with f` calls `f(&mut Scope, &Call, &mut Option<T>) -> Result<(), Complaint>`, for directives that add up.

/// See the module's documentation.
#[macro_export]
macro_rules! http_settings {
    (
        module $module:ident;
        $(merge $merge:path;)?
        $(values {
            $(
                $(#[doc = $value_doc:literal])+
                $value_field:ident : $value_type:ty = $value_default:expr, $value_rule:ident;
            )*
        })?
        fields {
            $(
                $(#[doc = $doc:literal])+
                $field:ident : $type:ty = $default:expr, $rule:ident;
                    $name:literal $contexts:expr, $arity:expr, default $default_text:literal, $how:ident $set:expr;
            )*
        }
        $(also {
            $(
                $(#[doc = $also_doc:literal])+
                $also_name:literal for $also_field:ident : $also_type:ty, $also_contexts:expr, $also_arity:expr,
                    default $also_default:literal, $also_how:ident $also_set:expr;
            )*
        })?
        $(frozen {
            $(
                $(#[doc = $frozen_doc:literal])+
                $frozen_field:ident : $frozen_type:ty = $frozen:expr;
            )*
        })?
        $(plain {
            $(
                $(#[doc = $plain_doc:literal])+
                $plain_name:literal $plain_contexts:expr, $plain_arity:expr, default $plain_default:literal,
                    $plain_set:expr;
            )*
        })?
    ) => {
        /// The module's settings of one scope, frozen.
        #[derive(Clone)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($($(#[doc = $value_doc])+ pub $value_field: $value_type,)*)?
            $($($(#[doc = $frozen_doc])+ pub $frozen_field: $frozen_type,)*)?
        }

        /// The module's settings of one scope while the configuration is read: unset fields are `None`.
        #[derive(Clone, Default)]
        pub struct Draft {
            $($(#[doc = $doc])+ pub $field: Option<$type>,)*
            $($($(#[doc = $value_doc])+ pub $value_field: Option<$value_type>,)*)?
        }

        impl $crate::http::settings::ModuleDraft for Draft {
            type Settings = Settings;

            fn is_shared(&self) -> bool {
                true $(&& $crate::http_settings!(@shared $rule self $field))*
                    $($(&& $crate::http_settings!(@shared $value_rule self $value_field))*)?
            }

            #[allow(unused_variables)]
            fn inherit(&mut self, parent: &Draft) {
                $($crate::http_settings!(@inherit $rule self parent $field);)*
                $($($crate::http_settings!(@inherit $value_rule self parent $value_field);)*)?
                $($merge(self, parent);)?
            }

            fn freeze(&self) -> Settings {
                $(let $field = self.$field.clone().unwrap_or_else(|| $default);)*
                $($(let $value_field = self.$value_field.clone().unwrap_or_else(|| $value_default);)*)?
                $($(let $frozen_field = $frozen;)*)?
                Settings {
                    $($field,)*
                    $($($value_field,)*)?
                    $($($frozen_field,)*)?
                }
            }
        }

        /// The module's directives.
        pub static DIRECTIVES: &[$crate::conf::directive::Directive<$crate::http::build::Scope>] = &[
            $($crate::conf::directive::Directive {
                name: $name,
                contexts: $contexts,
                arity: $arity,
                default: $default_text,
                doc: concat!($($doc),+),
                set: |scope, call| $crate::http_settings!(@set $how $set, scope, call, $module, $field),
            },)*
            $($($crate::conf::directive::Directive {
                name: $also_name,
                contexts: $also_contexts,
                arity: $also_arity,
                default: $also_default,
                doc: concat!($($also_doc),+),
                set: |scope, call| $crate::http_settings!(@set $also_how $also_set, scope, call, $module, $also_field),
            },)*)?
            $($($crate::conf::directive::Directive {
                name: $plain_name,
                contexts: $plain_contexts,
                arity: $plain_arity,
                default: $plain_default,
                doc: concat!($($plain_doc),+),
                set: $plain_set,
            },)*)?
        ];
    };

    (@shared inherit $self:ident $field:ident) => { true };
    (@shared own $self:ident $field:ident) => { $self.$field.is_none() };

    (@inherit inherit $self:ident $parent:ident $field:ident) => {
        if $self.$field.is_none() {
            $self.$field.clone_from(&$parent.$field);
        }
    };
    (@inherit own $self:ident $parent:ident $field:ident) => {};

    (@set once $set:expr, $scope:ident, $call:ident, $module:ident, $field:ident) => {{
        let value = $set(&mut *$scope, $call);
        let slot = &mut $scope.drafts.$module.get_or_insert_default().$field;
        $crate::conf::directive::set_once($call, slot, value)
    }};
    (@set with $set:expr, $scope:ident, $call:ident, $module:ident, $field:ident) => {{
        let mut slot = $scope.drafts.$module.get_or_insert_default().$field.take();
        let result = $set(&mut *$scope, $call, &mut slot);
        $scope.drafts.$module.get_or_insert_default().$field = slot;
        result
    }};
}

pub use crate::http_settings as settings;

/// What [`settings!`] gives every module's draft.
pub trait ModuleDraft: Clone + Default {
    /// The frozen form.
    type Settings;
    /// Whether a scope within this one that sets nothing has the same settings: none is set here that is not inherited.
    /// Scopes that share them are a few pointers, and ten thousand locations stay in the processor's cache.
    fn is_shared(&self) -> bool;
    /// Takes what is unset here from the scope around.
    fn inherit(&mut self, parent: &Self);
    /// The frozen settings; fields unset in every scope get their defaults.
    fn freeze(&self) -> Self::Settings;
}

/// Contexts in combinations that many directives share.
pub mod contexts {
    use crate::conf::context::Context;

    /// `http`
    pub const HTTP: Context = Context::HTTP;
    /// `server`
    pub const SERVER: Context = Context::SERVER;
    /// `location`
    pub const LOCATION: Context = Context::LOCATION;
    /// `http`, `server`
    pub const HTTP_SERVER: Context = Context::HTTP.union(Context::SERVER);
    /// `server`, `location`
    pub const SERVER_LOCATION: Context = Context::SERVER.union(Context::LOCATION);
    /// `http`, `server`, `location`
    pub const HTTP_SERVER_LOCATION: Context = HTTP_SERVER.union(Context::LOCATION);
    /// `http`, `server`, `location`, `if` in location
    pub const HTTP_SERVER_LOCATION_IF: Context = HTTP_SERVER_LOCATION.union(Context::IF_LOCATION);
}

/** The words of the SQL that nodes speak: DuckDB's, as far as one types them in a query. */

export const KEYWORDS =
  'all and anti any as asc asof between by case cast collate cross cube current desc describe distinct else end escape ' +
  'except exclude exists explain false filter first following for from full glob group grouping having ilike in inner ' +
  'intersect interval is join last lateral left like limit natural not null nulls offset on or order outer over ' +
  'partition pivot positional preceding qualify range recursive replace right rollup row rows sample select semi sets ' +
  'show similar some summarize tables tablesample then to true try_cast unbounded union unnest unpivot using values ' +
  'when where window with within'

export const TYPES =
  'bigint bit blob bool boolean char date datetime decimal double float float4 float8 hugeint int int1 int2 int4 int8 ' +
  'integer json list map numeric real smallint string struct text time timestamp timestamptz tinyint ubigint uinteger ' +
  'usmallint utinyint uuid varchar'

export const FUNCTIONS =
  'abs approx_count_distinct approx_quantile arg_max arg_min avg bool_and bool_or cbrt ceil coalesce concat concat_ws ' +
  'contains corr cos count count_if covar_pop current_date date_diff date_part date_trunc day dayname dense_rank ' +
  'ends_with exp extract first_value floor format greatest hash histogram hour ifnull lag last_value lead least length ' +
  'ln log10 lower lpad ltrim max median min minute mode month monthname nth_value ntile nullif percent_rank pow quantile ' +
  'quantile_cont quarter rank regexp_extract regexp_matches regexp_replace repeat replace reverse round row_number rpad ' +
  'rtrim second sign sin sqrt starts_with stddev stddev_pop strftime string_agg strlen strptime substring sum tan to_json ' +
  'trim trunc typeof upper var_pop variance week weekday year'

"""A few rows of every GLUE task, as its files hold them."""

FILES = {
  'cola': (
    'gj04\t1\t\tThe rope broke.\ncj99\t0\t*\tThe more "you would want\n',
    ['The rope broke.', 'The more "you would want'],
    None,
    [1, 0],
  ),
  'sst2': (
    'sentence\tlabel\nno wit , only gags \t0\ncharming \t1\n',
    ['no wit , only gags', 'charming'],
    None,
    [0, 1],
  ),
  'mrpc': (
    '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n'
    '1\t7\t8\t" He said so .\tHe " said so .\r\n',
    ['" He said so .'],
    ['He " said so .'],
    [1],
  ),
  'stsb': (
    'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n'
    '0\tg\tf\t12\t1\tn\tn\tA man.\tA woman.\t3.800\n',
    ['A man.'],
    ['A woman.'],
    [3.8],
  ),
  'qqp': (
    'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWho?\tWhat?\t0\n',
    ['Who?'],
    ['What?'],
    [0],
  ),
  'mnli': (
    'index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n'
    '0\tg\tIt rains.\tIt is wet.\tneutral\tentailment\n'
    '1\tg\tIt rains.\tIt is dry.\tneutral\tcontradiction\n',
    ['It rains.', 'It rains.'],
    ['It is wet.', 'It is dry.'],
    [0, 2],
  ),
  'qnli': (
    'index\tquestion\tsentence\tlabel\n0\tWhere?\tHere\x85and there.\tnot_entailment\n',
    ['Where?'],
    ['Here\x85and there.'],
    [1],
  ),
  'rte': (
    'index\tsentence1\tsentence2\tlabel\n0\tIt is.\tIt was.\tentailment\n',
    ['It is.'],
    ['It was.'],
    [0],
  ),
  'wnli': (
    'index\tsentence1\tsentence2\tlabel\n0\tIt is.\tIt was.\t1\n',
    ['It is.'],
    ['It was.'],
    [1],
  ),
}

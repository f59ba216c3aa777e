import next from 'eslint-config-next/core-web-vitals'
import typescript from 'eslint-config-next/typescript'

const config = [
  {
    ignores: [
      '**/.next/**',
      '**/out/**',
      '**/dist/**',
      '**/next-env.d.ts',
      'apps/playground/lib/records.ts',
      'packages/elytra/js/tests/codegen.generated.ts',
    ],
  },
  // Rules for React: those of its compiler took half of the time, and only the playground uses React.
  ...next.map((entry) =>
    entry.files ? { ...entry, files: ['apps/playground/**/*.{js,mjs,ts,tsx}'] } : entry,
  ),
  ...typescript,
  {
    settings: { next: { rootDir: 'apps/playground' } },
    rules: {
      'no-console': 'error',
      eqeqeq: 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      // The names of two packages would be the same thing twice.
      '@next/next/no-html-link-for-pages': 'off',
    },
  },
]

export default config

import Link from 'next/link'

export default function NotFound() {
  return (
    <div className="mx-auto w-full max-w-lg px-6 py-20 text-center">
      <h1 className="text-lg font-semibold">There is no such page</h1>
      <p className="text-ink-2 mt-1">
        <Link href="/" className="link">
          Go home
        </Link>
        , or press <kbd className="kbd">g</kbd> <kbd className="kbd">d</kbd> for your data.
      </p>
    </div>
  )
}

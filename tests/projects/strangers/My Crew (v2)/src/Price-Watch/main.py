from .crew import Thing


def run():
    print(Thing().crew().kickoff(inputs={"rayon": "épicerie", "semaine": "12"}).raw)


if __name__ == "__main__":
    run()

from crewai.tools import BaseTool


class LecteurDePrix(BaseTool):
	name: str = "Lecteur de prix n°1"
	description: str = "Lit les prix relevés cette semaine, un produit par ligne."

	def _run(self, produit: str = "") -> str:
		with open("data/prices.csv", encoding="utf-8") as f:
			return f.read()
